package balancer_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"trivet/internal/part"
	"trivet/proxy/proxytest"
)

// load is visitors who ask and post without a pause until they are told to stop.
type load struct {
	mu      sync.Mutex
	gets    int
	failed  []string
	longest time.Duration
	acked   map[string]bool // posts that were answered 200
	posted  map[string]int  // posts that an app saw, by how often
	wg      sync.WaitGroup
	stop    context.CancelFunc
}

// newLoad starts visitors; every app notes the posts that it sees.
func newLoad(s *stand, visitors int) *load {
	l := &load{acked: map[string]bool{}, posted: map[string]int{}}
	for _, srv := range s.servers {
		name := srv.name
		srv.setApp(func(w http.ResponseWriter, r *http.Request) { l.app(name, w, r) })
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	for v := range visitors {
		client := s.visitor(v%2 == 0)
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if i%10 == 9 {
					l.post(client, fmt.Sprintf("%d-%d", v, i))
				} else {
					l.get(client, i)
				}
			}
		})
	}
	return l
}

func (l *load) app(name string, w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		id, _ := io.ReadAll(r.Body)
		l.mu.Lock()
		l.posted[string(id)]++
		l.mu.Unlock()
	}
	if r.URL.Path == "/chunked" {
		for range 20 {
			_, _ = io.WriteString(w, strings.Repeat("x", 500))
		}
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = io.WriteString(w, name)
}

func (l *load) get(c *http.Client, i int) {
	path := [...]string{"/", "/chunked", "/style.css"}[i%3]
	begin := time.Now()
	resp, err := c.Get("https://" + domain + path)
	problem := ""
	if err != nil {
		problem = err.Error()
	} else {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 {
			problem = fmt.Sprintf("%s: %d %v", path, resp.StatusCode, err)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gets++
	l.longest = max(l.longest, time.Since(begin))
	if problem != "" {
		l.failed = append(l.failed, problem)
	}
}

func (l *load) post(c *http.Client, id string) {
	resp, err := c.Post("https://"+domain+"/", "text/plain", strings.NewReader(id))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[id] = resp.StatusCode == 200
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gets
}

// more waits for n further requests.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	goal := l.count() + n
	proxytest.Until(t, "further requests", func() bool { return l.count() >= goal })
}

// judge ends the load and says what went wrong.
func (l *load) judge(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	acked := 0
	for id, ok := range l.acked {
		if ok {
			acked++
			if l.posted[id] == 0 {
				t.Errorf("post %s was acknowledged and no app saw it", id)
			}
		}
	}
	for id, n := range l.posted {
		if n > 1 {
			t.Errorf("post %s was sent %d times", id, n)
		}
	}
	t.Logf("%d GETs, longest %s; %d POSTs seen, %d acknowledged", l.gets, l.longest, len(l.posted), acked)
	if len(l.failed) > 0 {
		t.Errorf("%d failed GETs of %d, such as %s", len(l.failed), l.gets, l.failed[0])
	}
}

// TestFault breaks one of three servers in each way under load, and heals it.
func TestFault(t *testing.T) {
	for name, mode := range map[string]proxytest.Mode{
		"killed": proxytest.Cut, "frozen": proxytest.Freeze, "garbage": proxytest.Garbage,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStand(t)
			l := newLoad(s, 8)
			l.more(t, 300)
			begin := time.Now()
			s.servers[1].wire.Set(mode)
			proxytest.Until(t, "s2 is out", func() bool {
				err := s.b.Check(t.Context())
				return err != nil && strings.Contains(err.Error(), "web on s2 is down")
			})
			t.Logf("out after %s", time.Since(begin))
			l.more(t, 300)
			s.servers[1].wire.Set(proxytest.Pass)
			proxytest.Until(t, "s2 is back", func() bool { return s.b.Check(t.Context()) == nil })
			l.more(t, 300)
			l.judge(t)
		})
	}
}

// TestDeadMember: a backend whose member is dead in the cluster is no problem
// of the balancer's, but is used if it answers.
func TestDeadMember(t *testing.T) {
	s := newStand(t)
	s.servers[2].wire.Set(proxytest.Cut)
	proxytest.Until(t, "s3 is out", func() bool { return s.b.Check(t.Context()) != nil })
	members := append([]part.Member(nil), s.state.Members...)
	members[2].Alive = false
	s.state.Members = members
	s.apply()
	if err := s.b.Check(t.Context()); err != nil {
		t.Errorf("Check: got %v, want nil", err)
	}
}

// TestAppUnwell: one server's app that says 503 is passed by; when all say so,
// their page comes through.
func TestAppUnwell(t *testing.T) {
	s := newStand(t)
	sorry := func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the database is away", http.StatusServiceUnavailable)
	}
	client := s.visitor(true)
	s.servers[0].setApp(sorry)
	for range 30 {
		if resp, body := ask(t, client, request(t, "GET", "https://www.foobar.com/")); resp.StatusCode != 200 {
			t.Fatalf("one unwell: got %d %s", resp.StatusCode, body)
		}
	}
	proxytest.Until(t, "s1 is unwell", func() bool {
		err := s.b.Check(t.Context())
		return err != nil && strings.Contains(err.Error(), "web on s1 is unwell: its check answers 503: the database is away")
	})
	s.servers[1].setApp(sorry)
	s.servers[2].setApp(sorry)
	proxytest.Until(t, "all are unwell", func() bool {
		err := s.b.Check(t.Context())
		return err != nil && strings.HasPrefix(err.Error(), "no web server is in service")
	})
	resp, body := ask(t, client, request(t, "GET", "https://www.foobar.com/"))
	if resp.StatusCode != 503 || body != "the database is away\n" {
		t.Errorf("all unwell: got %d %q, want the app's words", resp.StatusCode, body)
	}
	if resp, body := ask(t, client, request(t, "GET", "https://www.foobar.com/style.css")); resp.StatusCode != 200 {
		t.Errorf("all unwell: file: got %d %q, want 200", resp.StatusCode, body)
	}
}

// tunnelled is a visitor's end of a WebSocket connection.
type tunnelled struct {
	net *tls.Conn
	r   *bufio.Reader
}

// tunnel opens one through balancer and web server to an app that echoes.
func tunnel(t *testing.T, s *stand) *tunnelled {
	t.Helper()
	for _, srv := range s.servers {
		srv.setApp(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "websocket" {
				return // a check
			}
			c, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_, _ = io.Copy(c, rw)
		})
	}
	c, err := tls.Dial("tcp", s.https, s.tls())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: www.foobar.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("X-Request-Id") == "" {
		t.Fatalf("got %d %v, want 101", resp.StatusCode, resp.Header)
	}
	return &tunnelled{c, r}
}

func (c *tunnelled) echo(t *testing.T, text string) {
	t.Helper()
	_, _ = io.WriteString(c.net, text+"\n")
	if got, err := c.r.ReadString('\n'); err != nil || got != text+"\n" {
		t.Errorf("echo: got %q, %v, want %q", got, err, text)
	}
}

// lives says whether what is said still comes back.
func (c *tunnelled) lives() bool {
	_, _ = io.WriteString(c.net, "there?\n")
	got, err := c.r.ReadString('\n')
	return err == nil && got == "there?\n"
}

// TestApplyUnderLoad changes site, members and certificates during requests
// and a WebSocket connection: nothing is dropped.
func TestApplyUnderLoad(t *testing.T) {
	s := newStand(t)
	ws := tunnel(t, s)
	ws.echo(t, "before")
	l := newLoad(s, 4)
	all := s.state.Members
	for i := range 30 {
		changed := *newSite()
		changed.Aliases = []string{fmt.Sprintf("a%d.example", i)}
		changed.Balancer.Retries = 2 + i%2
		s.state.Site = &changed
		s.state.Members = all[:2+i%2]
		s.state.Identity = s.ca.Identity(t, "s1", part.Balancer)
		s.state.Certificates = []part.KeyPair{s.ca.Certificate(t, domain)}
		s.apply()
		l.more(t, 20)
	}
	ws.echo(t, "after")
	l.judge(t)
}

// TestDrain ends Run during a slow request and a WebSocket connection: both go
// on to their end, and then Run returns.
func TestDrain(t *testing.T) {
	s := newStand(t)
	ws := tunnel(t, s)
	ws.echo(t, "before")
	began, finish := make(chan struct{}), make(chan struct{})
	for _, srv := range s.servers {
		srv.setApp(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				close(began)
				<-finish
			}
			_, _ = io.WriteString(w, "done")
		})
	}
	got := make(chan string, 1)
	client := s.visitor(true)
	go func() {
		resp, err := client.Get("https://www.foobar.com/slow")
		if err != nil {
			got <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		got <- string(body)
	}()
	<-began
	s.stop()
	proxytest.Until(t, "no new connections", func() bool {
		c, err := tls.Dial("tcp", s.https, s.tls())
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	ws.echo(t, "while it drains")
	close(finish)
	if text := <-got; text != "done" {
		t.Errorf("slow request: got %q, want done", text)
	}
	ws.echo(t, "after the request")
	_ = ws.net.Close()
	select {
	case err := <-s.done:
		s.done <- err // for the clean-up
	case <-time.After(10 * time.Second):
		t.Error("Run has not returned, and nothing is open any more")
	}
	proxytest.Until(t, "the log is written", func() bool { return strings.Contains(s.access.String(), `"/slow"`) })
}
