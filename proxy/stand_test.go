package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"trivet/proxy"
	"trivet/proxy/proxytest"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

func itoa(n int) string { return strconv.Itoa(n) }

// stand says how a server under test is set up; the zero stand has no targets.
type stand struct {
	targets  []*upstream.Target
	settings upstream.Settings
	config   proxy.Config
	before   func(x *proxy.Exchange) bool // false: it has answered
	tls      *tls.Config
}

// served is a server that serves until the test ends.
type served struct {
	t       testing.TB
	server  *proxy.Server
	pool    *upstream.Pool
	address string
	stop    func() // drains, and waits until Serve has returned
	done    *records
}

// record is what is left of an exchange.
type record struct {
	status, retries int
	target          string
	broken          bool
	err             error
	sent, received  int64
}

// records are those of all exchanges.
type records struct {
	mu  sync.Mutex
	all []record
}

func (r *records) add(x *proxy.Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.all) < 1000 {
		r.all = append(r.all, record{x.Status, x.Retries, x.Target, x.Broken, x.Err, x.Sent, x.Received})
	}
}

// last waits for n exchanges and returns the last.
func (r *records) last(t testing.TB, n int) record {
	t.Helper()
	var got record
	proxytest.Until(t, "exchanges", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.all) >= n {
			got = r.all[len(r.all)-1]
		}
		return len(r.all) >= n
	})
	return got
}

func startServer(t testing.TB, st stand) *served {
	t.Helper()
	s := &served{t: t, pool: upstream.NewPool(upstream.PoolConfig{}), done: &records{}}
	st.settings.Targets = st.targets
	s.pool.Set(st.settings)
	keep := func(f *wire.Field) bool { return f.Kind < wire.Claim || f.Kind > wire.Tracestate }
	f := &proxy.Forwarder{Pool: s.pool, Keep: keep, Fail: func(x *proxy.Exchange, status int, err error) {
		x.Answer(status, nil, []byte(err.Error()))
	}}
	c := st.config
	c.Log, c.TLS = slog.New(slog.DiscardHandler), st.tls
	if c.Times == (proxy.Times{}) {
		c.Times = proxy.Times{Head: 10 * time.Second, Still: 10 * time.Second, Idle: time.Minute}
	}
	if c.Limits == (wire.Limits{}) {
		c.Limits = wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 32 << 10, Count: 100}
	}
	if c.Grace == 0 {
		c.Grace = 10 * time.Second
	}
	if c.Handler == nil {
		c.Handler = func(x *proxy.Exchange) {
			if st.before == nil || st.before(x) {
				f.Forward(x)
			}
		}
	}
	c.Done = s.done.add
	l := listen(t)
	s.address, s.server = l.Addr().String(), proxy.NewServer(c)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ctx, l) }()
	s.stop = sync.OnceFunc(func() {
		stop()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Serve has not returned")
		}
	})
	t.Cleanup(s.stop)
	return s
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func newTarget(name, address string) *upstream.Target {
	return upstream.NewTarget(upstream.TargetConfig{
		Name: name, Address: address, Dial: upstream.Dialer("tcp", address), IdleTimeout: time.Minute, State: upstream.Up,
	})
}

func targetsAt(all ...net.Listener) (t []*upstream.Target) {
	for i, l := range all {
		t = append(t, newTarget(string(rune('a'+i)), l.Addr().String()))
	}
	return t
}

func targetsOf(all ...*upstream.Target) []*upstream.Target { return all }

// raw is a target that treats each connection as serve says.
func raw(t testing.TB, name string, serve func(net.Conn, *bufio.Reader)) *upstream.Target {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				serve(c, bufio.NewReader(c))
			})
		}
	})
	return newTarget(name, l.Addr().String())
}

// web is a target that is an ordinary web server.
func web(t testing.TB, name string, h http.HandlerFunc) *upstream.Target {
	t.Helper()
	l := listen(t)
	srv := &http.Server{Handler: h}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return newTarget(name, l.Addr().String())
}

// readRequest reads a request and its body.
func readRequest(r *bufio.Reader) error {
	q, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, q.Body)
	}
	return err
}

// client is one connection to a server.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, address string) *client {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return &client{c, t, bufio.NewReader(c)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// answer reads one to a request by method.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("read answer's body after %d bytes: %v", len(body), err)
	}
	return resp, string(body)
}

// ended says whether the server closes the connection in an orderly way.
func (c *client) ended() bool {
	_, err := c.r.ReadByte()
	return err == io.EOF
}

// ask sends a request by method and returns status and body.
func (s *served) ask(method, path string, body io.Reader) (int, string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.address+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}
