package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHistogram(t *testing.T) {
	h := &histogram{}
	for i := range 1000 {
		h.add(time.Duration(i+1) * time.Microsecond)
	}
	for _, tt := range []struct {
		q    float64
		want time.Duration
	}{{0, time.Microsecond}, {0.5, 501 * time.Microsecond}, {0.99, 991 * time.Microsecond}} {
		got := h.quantile(tt.q)
		if off := float64(got-tt.want) / float64(tt.want); off > 0.02 || off < -0.02 {
			t.Errorf("quantile %v is %v, want %v", tt.q, got, tt.want)
		}
	}
}

func TestSmallAnswer(t *testing.T) {
	if got, want := len(newAnswers().small), 130; got != want {
		t.Errorf("the small answer has %d bytes, want %d", got, want)
	}
}

func TestBodyLength(t *testing.T) {
	tests := []struct {
		head string
		want int
		ok   bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Type: a\r\ncontent-length: 12\r\n", 12, true},
		{"HTTP/1.1 200 OK\r\nContent-Type: a\r\n", 0, false},
		{"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 12\r\n", 0, false},
	}
	for _, tt := range tests {
		got, err := bodyLength([]byte(tt.head))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("bodyLength(%q) = %d, %v, want %d", tt.head, got, err, tt.want)
		}
	}
}

// TestLoop lets visitors ask the target without a proxy between, plain and by
// TLS, whose records both ends write themselves.
func TestLoop(t *testing.T) {
	id, err := newIdentity(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%t", secure), func(t *testing.T) {
			l, err := newLoop()
			if err != nil {
				t.Fatal(err)
			}
			defer l.leave()
			v := &visit{n: 4, request: []byte("GET /small HTTP/1.1\r\n\r\n")}
			var server *tls.Config
			if secure {
				v.tls, server = id.client, id.server
			}
			if v.port, err = l.free(server); err != nil {
				t.Fatal(err)
			}
			if err := l.connect(v); err != nil {
				t.Fatal(err)
			}
			within, all, err := l.visits(t.Context(), 20*time.Millisecond, 0)
			if err != nil || within == 0 || all < within || all != l.served.Load() {
				t.Errorf("%d answers in time, %d in all, %d sent, %v", within, all, l.served.Load(), err)
			}
			if _, all, err = l.visits(t.Context(), 100*time.Millisecond, 1000); err != nil || all < 50 || all > 200 {
				t.Errorf("%d answers within 100 ms at 1000 a second: %v", all, err)
			}
		})
	}
}

// free listens on a port that nobody has.
func (l *loop) free(config *tls.Config) (int, error) {
	if err := l.listen(0, config); err != nil {
		return 0, err
	}
	name, err := unix.Getsockname(l.targets[len(l.targets)-1].fd)
	if err != nil {
		return 0, err
	}
	return name.(*unix.SockaddrInet4).Port, nil
}

func TestTemplates(t *testing.T) {
	for _, p := range peers {
		if p.config == "" {
			continue
		}
		for _, s := range scenes {
			set := settings{shape: s.shape, Name: p.name, Dir: t.TempDir()}
			if _, err := set.write(p.config); err != nil {
				t.Errorf("%s in %s: %v", p.name, s.name, err)
			}
		}
	}
}

func TestOutcome(t *testing.T) {
	o := Outcome{scene: scene{goal: 0.9}, measured: []string{"nginx", netHTTP}, Peers: []Peer{
		middle(ours, []sample{{CPU: 9}, {CPU: 8}, {CPU: 30}}),
		middle("nginx", []sample{{CPU: 12}, {CPU: 12}, {CPU: 40}}),
		middle(netHTTP, []sample{{CPU: 10}, {CPU: 10}, {CPU: 15}}),
		middle("a build", []sample{{CPU: 1}, {CPU: 1}, {CPU: 1}}),
	}}
	o.compare()
	if got, want := o.Peers[0].Ratio, 0.75; got != want {
		t.Errorf("ratio %v, want %v", got, want)
	}
	reached := []bool{o.Goals[0].Reached, o.Goals[1].Reached}
	if !slices.Equal(reached, []bool{true, false}) {
		t.Errorf("goals reached: %v, want the first only", reached)
	}
	var out bytes.Buffer
	r := Report{Scenes: []Outcome{o}}
	if err := r.print(&out); err != nil || !bytes.Contains(out.Bytes(), []byte("NOT REACHED")) {
		t.Errorf("%v, table %q", err, out.String())
	}
}
