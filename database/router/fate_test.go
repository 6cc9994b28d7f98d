package router

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"trivet/database/router/wire"
)

// between stands between a router and a mariadbd, and ends a connection when a
// statement has passed.
type between struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	cut    string // the statement that ends its connection
	after  bool   // mariadbd gets it first, and answers
	refuse string // the statement that is answered by wsrep's refusal instead
	seen   []string
}

func newBetween(t *testing.T, to string) *between {
	t.Helper()
	b := &between{listener: listen(t, "unix", filepath.Join(t.TempDir(), "between.sock")), to: to}
	t.Cleanup(func() { _ = b.listener.Close() })
	go func() {
		for {
			c, err := b.listener.Accept()
			if err != nil {
				return
			}
			go b.serve(c)
		}
	}()
	return b
}

func (b *between) socket() string { return b.listener.Addr().String() }

func (b *between) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	up, err := net.Dial("unix", b.to)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	answered := make(chan struct{}, 1024)
	silent := atomic.Bool{}
	go func() {
		defer func() { _ = c.Close() }()
		buffer := make([]byte, 64<<10)
		for {
			n, err := up.Read(buffer)
			if err != nil {
				return
			}
			answered <- struct{}{}
			if !silent.Load() {
				_, _ = c.Write(buffer[:n])
			}
		}
	}()
	head := make([]byte, wire.HeaderSize)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		n, _ := wire.Header(head)
		payload := make([]byte, n)
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		for len(answered) > 0 {
			<-answered
		}
		cut, after, refused := b.decide(payload)
		switch {
		case refused:
			e := wire.Error{Code: 1047, State: "08S01", Text: "WSREP has not yet prepared node for application use"}
			_, _ = c.Write(wire.Frame(1, e.Append(nil)))
			continue
		case cut && !after:
			return
		}
		silent.Store(cut)
		_, _ = up.Write(append(bytes.Clone(head), payload...))
		if cut {
			<-answered
			return
		}
	}
}

func (b *between) decide(payload []byte) (cut, after, refused bool) {
	if len(payload) == 0 || wire.Command(payload[0]) != wire.Query {
		return false, false, false
	}
	text := string(payload[1:])
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, text)
	return text == b.cut, b.after, text == b.refuse
}

// times is how often a statement has passed.
func (b *between) times(text string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seen {
		if s == text {
			n++
		}
	}
	return n
}

func (b *between) set(cut string, after bool, refuse string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut, b.after, b.refuse, b.seen = cut, after, refuse, nil
}

// A statement that was sent and not answered is never sent again, whatever it was.
func TestNothingIsSentTwice(t *testing.T) {
	b := newBetween(t, shared(t, 0).socket)
	s := start(t, map[string]string{"s1": b.socket(), "s2": shared(t, 1).socket})
	s.elect("s1", "s1", "s2")
	for _, c := range []struct {
		name   string
		before []string
		cut    string
		want   uint16
		ends   bool
	}{
		{"commit", []string{"BEGIN", "INSERT INTO t (v) VALUES (1)"}, "COMMIT", 1927, true},
		{"write by itself", nil, "INSERT INTO t (v) VALUES (2)", 1927, true},
		{"read by itself", nil, "SELECT 5", 1927, true},
		{"write in a transaction", []string{"BEGIN"}, "INSERT INTO t (v) VALUES (3)", 1213, false},
		{"several in a transaction", []string{"BEGIN"}, "INSERT INTO t (v) VALUES (3); COMMIT", 1927, true},
		{"table in a transaction", []string{"BEGIN", "DELETE FROM t WHERE id<0"}, "CREATE TABLE IF NOT EXISTS u (id INT PRIMARY KEY)", 1927, true},
		{"begin in a transaction", []string{"BEGIN", "DELETE FROM t WHERE id<0"}, "START TRANSACTION", 1927, true},
	} {
		for _, after := range []bool{false, true} {
			for _, via := range []string{"s1", "s2"} {
				r := dial(t, s.app[via], wire.ClientMultiStatement)
				for _, q := range c.before {
					r.good(wire.Query, q)
				}
				b.set(c.cut, after, "")
				reply, _ := r.ask(wire.Query, c.cut)
				if n := b.times(c.cut); reply.Code != c.want || n != 1 {
					t.Errorf("%s by %s: got %d, and it was sent %d times; want %d, once", c.name, via, reply.Code, n, c.want)
				}
				if c.ends {
					r.ended()
				} else {
					r.good(wire.Query, "SELECT 1")
				}
				b.set("", false, "")
			}
		}
	}
}

// What was asked for reads has changed nothing, and is asked again.
func TestReadsAreSentAgain(t *testing.T) {
	b := newBetween(t, shared(t, 0).socket)
	s := start(t, map[string]string{"s1": b.socket(), "s2": shared(t, 1).socket})
	s.elect("s1", "s1", "s2")
	for _, after := range []bool{false, true} {
		r := dial(t, s.read["s1"], 0)
		b.set("SELECT 5", after, "")
		r.send(0, append([]byte{byte(wire.Query)}, "SELECT 5"...))
		poll(t, "it is sent again", patience, func() bool { return b.times("SELECT 5") > 1 })
		b.set("", false, "")
		for _, want := range []byte{1, 3, 0xfe, 1, 0xfe} {
			if p, _ := r.packet(); p[0] != want {
				t.Errorf("got %x, want that it begins with %d", p, want)
			}
		}
		r.good(wire.Query, "BEGIN")
		r.good(wire.Query, "SELECT 4")
		b.set("SELECT 5", after, "")
		if reply, _ := r.ask(wire.Query, "SELECT 5"); reply.Code != 1213 || b.times("SELECT 5") != 1 {
			t.Errorf("in a transaction: got %d after %d times, want 1213 after one", reply.Code, b.times("SELECT 5"))
		}
		b.set("", false, "")
	}
}

// What a node refuses that is no part of the group was not done: it is sent to
// the next writer, unless a transaction went with it.
func TestRefusedByGroup(t *testing.T) {
	b := newBetween(t, shared(t, 0).socket)
	s := start(t, map[string]string{"s1": b.socket(), "s2": shared(t, 1).socket})
	const q = "SELECT @@server_id"
	for _, via := range []string{"s1", "s2"} {
		s.elect("s1", "s1", "s2")
		alone, open := dial(t, s.app[via], 0), dial(t, s.app[via], 0)
		open.good(wire.Query, "BEGIN")
		open.good(wire.Query, "INSERT INTO t (v) VALUES (1)")
		b.set("", false, q)
		if reply, _ := open.ask(wire.Query, q); reply.Code != 1213 {
			t.Errorf("in a transaction: got %d, want 1213", reply.Code)
		}
		alone.send(0, append([]byte{byte(wire.Query)}, q...))
		poll(t, "it was refused and is sent again", patience, func() bool { return b.times(q) > 2 })
		s.elect("s2", "s1", "s2")
		var rows [][]byte
		for range 5 {
			p, _ := alone.packet()
			rows = append(rows, p)
		}
		if got := string(rows[3][1:]); got != "2" {
			t.Errorf("answered by %q, want 2", got)
		}
		b.set("", false, "")
	}
}
