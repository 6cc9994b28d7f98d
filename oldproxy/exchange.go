package proxy

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"time"
)

// Exchange is what is known of one request and its answer.
type Exchange struct {
	Request  *http.Request // as it came
	ID       string        // the request's own name, the same on every server it passes
	Client   string        // address of who asked: the connection's, unless Observer.Begin knows better
	Begin    time.Time
	Duration time.Duration // until the answer, or the tunnel, ended
	Status   int           // 101 for a tunnel; 0: the handler gave none
	Bytes    int64         // of the answer's body; tunnels are not counted
	Server   string        // target that answered; empty: none did
	Retries  int           // further targets that were tried
	Broken   bool          // the answer broke off
}

type exchangeKey struct{}

// ExchangeOf returns the exchange that ctx belongs to; outside Observe, one
// that nobody reads.
func ExchangeOf(ctx context.Context) *Exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*Exchange); ok {
		return x
	}
	return &Exchange{}
}

// Observer follows requests through a handler.
type Observer struct {
	// Begin is called before the handler; it may set x.ID and x.Client, and change x.Request's header.
	Begin func(x *Exchange)
	// Stamp is called just before the answer's head is sent, h being all that
	// the handler set. An interim answer (1xx) is not stamped.
	Stamp func(x *Exchange, h http.Header)
	// End is called when all is over, even if the handler panicked.
	End func(x *Exchange)
}

// Wrap returns next with o around it.
func (o Observer) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := &Exchange{Begin: time.Now(), Client: ClientOf(r.RemoteAddr)}
		x.Request = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
		o.Begin(x)
		finished := false
		defer func() {
			x.Duration, x.Broken = time.Since(x.Begin), !finished
			o.End(x)
		}()
		next.ServeHTTP(&recorder{ResponseWriter: w, exchange: x, stamp: o.Stamp}, x.Request)
		finished = true
	})
}

// recorder notes what passes it.
type recorder struct {
	http.ResponseWriter
	exchange *Exchange
	stamp    func(*Exchange, http.Header)
}

// Unwrap lets http.ResponseController find the rest.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) WriteHeader(status int) {
	if status >= 200 && r.exchange.Status == 0 {
		r.begin(status)
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) begin(status int) {
	r.exchange.Status = status
	r.stamp(r.exchange, r.Header())
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.exchange.Status == 0 {
		r.begin(http.StatusOK)
	}
	n, err := r.ResponseWriter.Write(p)
	r.exchange.Bytes += int64(n)
	return n, err
}

// Hijack is how a tunnel begins: the forwarder writes the head itself, out of
// the header.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(r.ResponseWriter).Hijack()
	if err == nil {
		r.begin(http.StatusSwitchingProtocols)
	}
	return conn, rw, err
}
