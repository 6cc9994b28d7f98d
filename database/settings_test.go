package database

import (
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/site"
)

var update = flag.Bool("update", false, "write the golden files")

func TestSettings(t *testing.T) {
	s := &site.Site{Name: "foobar", Database: site.Database{Memory: 64, Connections: 150}}
	for name, address := range map[string][]string{"v4": {"10.77.0.11", "10.77.0.12", "10.77.0.13"}, "v6": {"fd00::11", "fd00::12", "fd00::13"}} {
		members := []part.Member{{Name: "s1", Address: address[0]}, {Name: "s2", Address: address[1]}, {Name: "s3", Address: address[2]}}
		got, err := settings(s, "s2", members, Paths{}.withDefaults(), 64)
		if err != nil {
			t.Fatal(err)
		}
		golden := "testdata/" + name + ".cnf"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", golden, diff)
		}
	}
	if _, err := settings(s, "s4", nil, Paths{}, 64); err == nil {
		t.Error("a server that the site does not name: got no error")
	}
}

func TestRecovered(t *testing.T) {
	for _, c := range []struct {
		out, uuid string
		seqno     int64
		bad       bool
	}{
		{"x\n2026-11-23 20:28:39 0 [Note] WSREP: Recovered position: " + historyA + ":42\nmore", historyA, 42, false},
		{"2026 0 [Note] WSREP: Recovered position: " + historyA + ":42,0-1-3", historyA, 42, false},
		{"WSREP: Recovered position: " + noUUID + ":-1", "", -1, false},
		{"0 [ERROR] InnoDB: corrupt\n0 [ERROR] Aborting", "", -1, true},
		{"", "", -1, true},
	} {
		uuid, seqno, err := recovered([]byte(c.out), errors.New("exit status 1"))
		if uuid != c.uuid || seqno != c.seqno || (err != nil) != c.bad {
			t.Errorf("%q: got %q %d %v, want %q %d, bad %t", c.out, uuid, seqno, err, c.uuid, c.seqno, c.bad)
		}
	}
}

func TestParseStatus(t *testing.T) {
	good := map[string]string{
		"wsrep_ready": "ON", "wsrep_connected": "ON", "wsrep_cluster_status": "Primary", "wsrep_local_state": "4",
		"wsrep_desync_count": "0", "wsrep_incoming_addresses": "s1:3306,s2:3306",
	}
	if h := parseStatus(good); !h.synced() || !cmp.Equal(h.names, []string{"s1", "s2"}) {
		t.Errorf("got %+v, want a synced node with s1 and s2", h)
	}
	for _, bad := range []struct{ name, value string }{
		{"wsrep_ready", "OFF"},
		{"wsrep_connected", "OFF"},
		{"wsrep_cluster_status", "non-Primary"},
		{"wsrep_local_state", "2"},
		{"wsrep_desync_count", "1"},
		{"wsrep_desync_count", ""},
	} {
		status := map[string]string{}
		for k, v := range good {
			status[k] = v
		}
		status[bad.name] = bad.value
		if parseStatus(status).synced() {
			t.Errorf("%s=%q: got synced", bad.name, bad.value)
		}
	}
	if parseStatus(nil).synced() {
		t.Error("no status: got synced")
	}
}

func TestFirstError(t *testing.T) {
	for out, want := range map[string]string{
		"a\n0 [ERROR] InnoDB: corrupt\n0 [ERROR] Aborting\n": "InnoDB: corrupt",
		"a\nb\n\n": "b",
		"":         "nothing was said",
	} {
		if got := firstError([]byte(out)); got != want {
			t.Errorf("%q: got %q, want %q", out, got, want)
		}
	}
}

// The hash is the one that MariaDB's own PASSWORD('password') gives.
func TestNativeHash(t *testing.T) {
	if got, want := nativeHash("password"), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		in   string
		mark byte
		want string
	}{{"foo", '`', "`foo`"}, {"a`b", '`', "`a``b`"}, {`it's \`, '\'', `'it''s \\'`}} {
		if got := quote(c.in, c.mark); got != c.want {
			t.Errorf("quote %q: got %s, want %s", c.in, got, c.want)
		}
	}
}
