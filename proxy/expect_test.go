package proxy

import (
	"net"
	"testing"
	"time"

	"trivet/proxy/wire"
)

// TestExpectRace: whoever reads the body may find that the answer has begun and
// nobody told the client to send it. It is then not known what comes next.
func TestExpectRace(t *testing.T) {
	for name, tt := range map[string]struct {
		begun, want bool
	}{"the answer was first": {true, true}, "the reader was first": {false, false}} {
		c := &conn{server: NewServer(Config{}), net: nowhere{}, fd: -1}
		x := &turn{c: c, request: wire.Request{Method: []byte("POST"), Major: 1, Minor: 1, Length: 4, Expect: true}}
		x.body.turn, x.answer.turn = x, x
		x.body.begin(&x.request)
		x.answer.begin(&x.request)
		x.answer.began = tt.begun // head has come so far, and frame is next
		if err := x.body.goOn(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		x.answer.frame(200, 0)
		if got := x.answer.close; got != tt.want {
			t.Errorf("%s: the connection closes: got %v, want %v", name, got, tt.want)
		}
	}
}

// nowhere takes all that is written.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
