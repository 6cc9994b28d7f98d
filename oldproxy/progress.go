package proxy

import (
	"io"
	"net/http"
	"time"
)

// Progress returns next with a limit on how long a client may stand still:
// while its request's body is awaited, and while it takes nothing of its answer.
// A client that is slow but moves is not bothered, nor is a stream in which
// nothing happens, nor a tunnel.
func Progress(limit time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ProtoMajor == 1 {
			_ = control.SetWriteDeadline(time.Time{}) // that of the request before
		}
		if r.Body != nil && r.Body != http.NoBody {
			r = r.WithContext(r.Context())
			r.Body = &movingBody{ReadCloser: r.Body, guard: newGuard(limit, control.SetReadDeadline)}
		}
		next.ServeHTTP(&movingAnswer{ResponseWriter: w, control: control, guard: newGuard(limit, control.SetWriteDeadline)}, r)
		// The server itself now reads what is left of the body, then writes what is left of the answer.
		if r.Body != nil && r.Body != http.NoBody {
			_ = control.SetReadDeadline(time.Now().Add(limit))
		}
		_ = control.SetWriteDeadline(time.Now().Add(2 * limit))
	})
}

// guard ends a read or a write that takes too long. It sets no deadline before
// that, for under HTTP/2 a deadline breaks a stream on which nobody waits, too.
type guard struct {
	limit time.Duration
	timer *time.Timer
	end   func()
}

func newGuard(limit time.Duration, setDeadline func(time.Time) error) *guard {
	return &guard{limit: limit, end: func() { _ = setDeadline(time.Unix(1, 0)) }}
}

// during runs f, at most as long as the limit.
func (g *guard) during(f func() (int, error)) (int, error) {
	if g.timer == nil {
		g.timer = time.AfterFunc(g.limit, g.end)
	} else {
		g.timer.Reset(g.limit)
	}
	defer g.timer.Stop()
	return f()
}

type movingBody struct {
	io.ReadCloser
	guard *guard
}

func (b *movingBody) Read(p []byte) (int, error) {
	return b.guard.during(func() (int, error) { return b.ReadCloser.Read(p) })
}

type movingAnswer struct {
	http.ResponseWriter
	control *http.ResponseController
	guard   *guard
}

// Unwrap lets http.ResponseController find the rest.
func (a *movingAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *movingAnswer) Write(p []byte) (int, error) {
	return a.guard.during(func() (int, error) { return a.ResponseWriter.Write(p) })
}

// FlushError is what http.ResponseController calls.
func (a *movingAnswer) FlushError() error {
	_, err := a.guard.during(func() (int, error) { return 0, a.control.Flush() })
	return err
}
