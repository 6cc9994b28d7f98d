package router

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/metric"
	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
)

const siteName = "foo"

// site is two servers with a router and a scripted mariadbd each: it greets
// with its server's name and echoes lines.
type site struct {
	t         *testing.T
	authority *mtlstest.Authority
	address   map[string]string // of the tunnels, by server
	space     string            // network namespace of s2's tunnel; empty: none
	port      int
	role      part.DatabaseRole
	routers   map[string]*Router
	app       map[string]string // address for the app, by server
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, address: map[string]string{"s1": "127.0.81.1", "s2": "127.0.81.2"}}
	s.startAll()
	return s
}

func (s *site) startAll() {
	s.t.Helper()
	s.authority, s.routers, s.app = mtlstest.New(s.t, siteName), map[string]*Router{}, map[string]string{}
	for _, name := range []string{"s1", "s2"} {
		s.start(name)
	}
}

// tunnel listens on the server's address, in its namespace if it has one.
func (s *site) tunnel(name string) net.Listener {
	s.t.Helper()
	address := net.JoinHostPort(s.address[name], strconv.Itoa(s.port))
	if name != "s2" || s.space == "" {
		return listen(s.t, "tcp", address)
	}
	var l net.Listener
	err := inNamespace(s.space, func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *site) start(name string) {
	s.t.Helper()
	socket := filepath.Join(s.t.TempDir(), "db.sock")
	scripted(s.t, name, socket)
	tunnel := s.tunnel(name)
	s.port = tunnel.Addr().(*net.TCPAddr).Port
	sql := listen(s.t, "tcp", "127.0.0.1:0")
	s.app[name] = sql.Addr().String()
	r := New(Config{
		Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry(),
		SQL: sql, Socket: listen(s.t, "unix", filepath.Join(s.t.TempDir(), "app.sock")), Tunnel: tunnel, Database: socket, TunnelPort: s.port,
	})
	s.routers[name] = r
	run(s.t, r)
}

func run(t *testing.T, r *Router) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func scripted(t *testing.T, name, socket string) {
	t.Helper()
	l := listen(t, "unix", socket)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, name+"\n")
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// elect makes writer the next one and tells the named servers of it.
func (s *site) elect(writer string, tell ...string) {
	s.t.Helper()
	s.role.Epoch++
	s.role.Writer = writer
	s.tell(tell...)
}

func (s *site) tell(names ...string) {
	s.t.Helper()
	for _, name := range names {
		state := part.State{
			Server: name, Database: s.role, Bundle: s.authority.Bundle, Identity: s.authority.Identity(s.t, name, part.Router),
			Members: []part.Member{{Name: "s1", Address: s.address["s1"]}, {Name: "s2", Address: s.address["s2"]}},
		}
		if err := s.routers[name].Apply(s.t.Context(), state); err != nil {
			s.t.Fatal(err)
		}
	}
}

// connection is one of the app.
type connection struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *site) connect(via string) *connection {
	s.t.Helper()
	c, err := net.Dial("tcp", s.app[via])
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	return &connection{s.t, c, bufio.NewReader(c)}
}

func (c *connection) line(want string) {
	c.t.Helper()
	got, err := c.r.ReadString('\n')
	if err != nil || got != want+"\n" {
		c.t.Fatalf("got %q, %v; want %q", got, err, want)
	}
}

func (c *connection) echo(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text+"\n"); err != nil {
		c.t.Fatal(err)
	}
	c.line(text)
}

// ended waits for the other side to close.
func (c *connection) ended() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil || isTimeout(err) {
		c.t.Fatalf("got %q, %v; want a closed connection", b, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// refused reads an error packet and returns its code and text.
func (c *connection) refused() (uint16, string) {
	c.t.Helper()
	head := make([]byte, 4)
	if _, err := io.ReadFull(c.r, head); err != nil {
		c.t.Fatal(err)
	}
	body := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	if _, err := io.ReadFull(c.r, body); err != nil {
		c.t.Fatal(err)
	}
	if head[3] != 0 || body[0] != 0xff {
		c.t.Fatalf("got sequence %d and %x, want an error packet", head[3], body)
	}
	c.ended()
	return binary.LittleEndian.Uint16(body[1:]), string(body[3:])
}

func TestPipes(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	for _, via := range []string{"s1", "s2"} {
		c := s.connect(via)
		c.line("s1")
		c.echo("hello")
		c.echo(strings.Repeat("x", 3*chunk))
	}
}

func TestSwitch(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	var old []*connection
	for _, via := range []string{"s1", "s2", "s1", "s2"} {
		c := s.connect(via)
		c.line("s1")
		old = append(old, c)
	}
	s.elect("s2", "s1", "s2")
	for _, c := range old {
		c.ended()
	}
	for _, via := range []string{"s1", "s2"} {
		s.connect(via).line("s2")
	}
}

// A repeated state must not close anything.
func TestSameEpoch(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	c := s.connect("s2")
	c.line("s1")
	s.tell("s1", "s2")
	c.echo("still here")
}

// The caller hears of the change first: the callee holds it until it hears, too.
func TestCalleeIsBehind(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	s.elect("s2", "s1")
	c := s.connect("s1")
	s.tell("s2")
	c.line("s2")
}

// The callee hears first: the caller must not get through to a former writer.
func TestCallerIsBehind(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	s.elect("s2", "s1") // s2 still believes in s1
	c := s.connect("s2")
	s.tell("s2")
	c.line("s2")
}

func TestHeldUntilElected(t *testing.T) {
	s := newSite(t)
	s.elect("", "s1", "s2")
	c := s.connect("s1")
	s.elect("s1", "s1", "s2")
	c.line("s1")
}

func TestNobodyWrites(t *testing.T) {
	s := newSite(t)
	s.elect("", "s1")
	if err := s.routers["s1"].Check(t.Context()); err == nil {
		t.Error("check without a writer: got nil")
	}
	code, text := s.connect("s1").refused()
	if code != errNoWriter || !strings.Contains(text, "takes no writes now") {
		t.Errorf("got %d %q", code, text)
	}
}

func TestTooMany(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1")
	r := s.routers["s1"]
	for range maxPiped {
		r.piped <- struct{}{}
	}
	for range maxWaiting {
		r.waiting <- struct{}{}
	}
	if code, _ := s.connect("s1").refused(); code != errTooMany {
		t.Errorf("got %d, want %d", code, errTooMany)
	}
	<-r.waiting
	c := s.connect("s1") // waits in the queue
	<-r.piped
	c.line("s1")
}

func TestTunnelRefuses(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	epoch := s.role.Epoch
	other := mtlstest.New(t, siteName)
	for _, c := range []struct {
		name   string
		id     part.KeyPair
		server string
		epoch  int64
		want   bool
	}{
		{"router of this epoch", s.authority.Identity(t, "s2", part.Router), "s1", epoch, true},
		{"web of this site", s.authority.Identity(t, "s2", part.Web), "s1", epoch, false},
		{"router of another site", s.authority.Named(t, mtls.ID("bar", "s2", part.Router), time.Hour), "s1", epoch, false},
		{"router of another authority", other.Identity(t, "s2", part.Router), "s1", epoch, false},
		{"former epoch", s.authority.Identity(t, "s2", part.Router), "s1", epoch - 1, false},
		{"not the writer", s.authority.Identity(t, "s1", part.Router), "s2", epoch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := s.call(t, c.id, c.server, c.epoch)
			if (err == nil) != c.want {
				t.Errorf("got %v, want it taken: %t", err, c.want)
			}
		})
	}
}

// call is a tunnel's caller with an identity of its choice.
func (s *site) call(t *testing.T, id part.KeyPair, server string, epoch int64) error {
	t.Helper()
	cert, err := tls.X509KeyPair(id.Certificate, id.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := mtls.Client(s.authority.Source(t, "s2", part.Router), server, part.Router)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	c, err := tls.Dial("tcp", net.JoinHostPort(s.address[server], strconv.Itoa(s.port)), config)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return ask(ctx, c, epoch)
}

func TestNoState(t *testing.T) {
	s := newSite(t)
	if err := s.routers["s1"].Check(t.Context()); err == nil || err.Error() != "no state yet" {
		t.Errorf("got %v, want no state yet", err)
	}
}
