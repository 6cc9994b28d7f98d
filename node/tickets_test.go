package node

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDue(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name string
		made time.Duration // before now
		want bool
	}{
		{"new", 0, false},
		{"nearly", ticketLife - time.Second, false},
		{"due", ticketLife, true},
		{"long due", 100 * ticketLife, true},
		{"by a clock that is a little ahead", -5 * time.Minute, false},
		{"by a clock that was a year ahead", -365 * 24 * time.Hour, true},
	}
	for _, tt := range tests {
		if got := due([]ticketKey{{At: now.Add(-tt.made)}, {}}, now); got != tt.want {
			t.Errorf("%s: due = %v, want %v", tt.name, got, tt.want)
		}
	}
	if !due(nil, now) {
		t.Error("no key is due where there is none")
	}
}

func TestRenew(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key := func(name string, age time.Duration) ticketKey { return ticketKey{Key: []byte(name), At: now.Add(-age)} }
	tests := []struct {
		name string
		keys []ticketKey
		want string
	}{
		{"first", nil, "new"},
		{"second", []ticketKey{key("a", ticketLife)}, "new a"},
		{"third", []ticketKey{key("b", ticketLife), key("a", 2*ticketLife)}, "new b a"},
		{"fourth", []ticketKey{key("c", ticketLife), key("b", 2*ticketLife), key("a", 2*ticketLife+1)}, "new c b"},
		{"after a long rest", []ticketKey{key("c", 100*ticketLife), key("b", 101*ticketLife)}, "new"},
		{"after a clock that was ahead", []ticketKey{key("f", -100*ticketLife), key("b", ticketLife)}, "new f b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			was := append([]ticketKey(nil), tt.keys...)
			got := renew(tt.keys, now, []byte("new"))
			var names []string
			for _, k := range got {
				names = append(names, string(k.Key))
			}
			if diff := cmp.Diff(tt.want, strings.Join(names, " ")); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
			if !got[0].At.Equal(now) || due(got, now) {
				t.Errorf("the new key is of %s, want %s", got[0].At, now)
			}
			if diff := cmp.Diff(was, tt.keys); diff != "" {
				t.Errorf("the former keys changed:\n%s", diff)
			}
		})
	}
}

// The secret is written as part.SecretTicketKeys says.
func TestTicketSecret(t *testing.T) {
	a, b := freshTicket(), freshTicket()
	words := strings.Fields(ticketSecret([]ticketKey{{Key: a}, {Key: b}}))
	if len(words) != 2 || string(a) == string(b) {
		t.Fatalf("words = %q, want two that differ", words)
	}
	for i, want := range [][]byte{a, b} {
		got, err := base64.StdEncoding.DecodeString(words[i])
		if err != nil || string(got) != string(want) || len(got) != 32 {
			t.Errorf("word %d = %x, %v, want %x", i, got, err, want)
		}
	}
}
