package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// steadyRate is how many safe requests a second the load of the balancer's
// cases sends.
const steadyRate = 500

// steady is a load of safe requests only: the app and a static file, over kept
// connections of HTTP/1.1 and HTTP/2, one in ten over a connection of its own.
//
// A request that meets the end of its connection before it is answered is sent
// once more, as RFC 9110 section 9.2.2 permits a client, whether by Go's client
// or by this one; each such repetition is counted, so that a case can demand
// that there are none. An answer of a status other than 200 is never repeated.
type steady struct {
	kept []*http.Client // HTTP/1.1 and HTTP/2 by turns
	once *http.Client   // a connection for each request
	rate int            // requests a second
	room chan struct{}  // taken by each request that is under way

	mu       sync.Mutex
	failed   []Failure
	took     []time.Duration // of those answered with 200
	repeated int
}

// steadyPaths are asked for by turns.
var steadyPaths = []string{"/", "/style.css", "/api/messages"}

// newSteady makes a load on the address.
func newSteady(t *testing.T, address string) *steady {
	t.Helper()
	s := &steady{once: visitor(t, address), rate: steadyRate, room: make(chan struct{}, waiting)}
	once := s.once.Transport.(*http.Transport)
	once.DisableKeepAlives, once.MaxConnsPerHost = true, 64
	for i := range 8 {
		c := visitor(t, address)
		kept := c.Transport.(*http.Transport)
		kept.ForceAttemptHTTP2, kept.MaxConnsPerHost = i%2 == 1, 6 // as browsers do
		s.kept = append(s.kept, c)
	}
	return s
}

// waiting bounds the requests of a steady load that are under way. A machine
// that is too busy for the rate gets less of it, rather than requests that wait
// in the client until their time is over: those would say nothing of the site.
const waiting = 5 * steadyRate

// send sends until ctx ends, then waits for all answers.
func (s *steady) send(ctx context.Context) {
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	each := time.Second / time.Duration(s.rate)
	sent, due, last := 0, time.Duration(0), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		due = min(due+now.Sub(last), time.Second) // what was missed is not made up for at once
		for last = now; due >= each && len(s.room) < cap(s.room); due -= each {
			i := sent
			sent++
			s.room <- struct{}{}
			wg.Go(func() {
				defer func() { <-s.room }()
				s.get(i)
			})
		}
	}
}

// get sends the i-th request.
func (s *steady) get(i int) {
	client := s.once
	if i%10 != 0 {
		client = s.kept[i%len(s.kept)]
	}
	path, begun := steadyPaths[i%len(steadyPaths)], time.Now()
	var connections atomic.Int32
	err := ask(client, path, &connections)
	if brokenOff(err) {
		err = ask(client, path, &connections)
	}
	took := time.Since(begun)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repeated += max(0, int(connections.Load())-1)
	if err != nil {
		s.failed = append(s.failed, Failure{begun, fmt.Sprintf("%s: %v (request %d, after %.2f s)", path, err, i, took.Seconds())})
		return
	}
	s.took = append(s.took, took)
}

// errStatus is an answer that is not 200.
type errStatus string

func (e errStatus) Error() string { return string(e) }

// ask asks once, and counts the connections that this took.
func ask(c *http.Client, path string, connections *atomic.Int32) error {
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connections.Add(1) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+Domain+path, nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err == nil && res.StatusCode != http.StatusOK {
		return errStatus(res.Status)
	}
	return err
}

// brokenOff says that the connection ended before the answer did.
func brokenOff(err error) bool {
	var status errStatus
	var timeout net.Error
	return err != nil && !errors.As(err, &status) && (!errors.As(err, &timeout) || !timeout.Timeout())
}

// underWay is how many requests are.
func (s *steady) underWay() int { return len(s.room) }

// answered is how many were answered with 200.
func (s *steady) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.took)
}

// underLoad runs a case under a steady load on the address.
func underLoad(t *testing.T, address string, during func(s *steady)) *steady {
	t.Helper()
	s := newSteady(t, address)
	s.run(t, func() { during(s) })
	return s
}

// run sends while a case does its work, and a second's requests besides.
func (s *steady) run(t *testing.T, during func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.send(ctx) }()
	defer func() { stop(); <-done }()
	s.more(t, s.rate/2)
	during()
	s.more(t, s.rate/2)
	stop()
	<-done
}

// more waits until n further requests were answered.
func (s *steady) more(t *testing.T, n int) {
	t.Helper()
	n += s.answered()
	eventually(t, 30*time.Second, fmt.Sprintf("%d requests are answered", n), func() bool { return s.answered() >= n })
}

// figures are those of a load that has ended.
type figures struct {
	answered, failed, repeated int
	p99, longest               time.Duration
}

func (f figures) String() string {
	return fmt.Sprintf("%d requests answered, %d failed, %d repeated by the client; p99 %.1f ms, longest %.0f ms",
		f.answered, f.failed, f.repeated, float64(f.p99.Microseconds())/1000, float64(f.longest.Microseconds())/1000)
}

func (s *steady) figures() figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	took := slices.Sorted(slices.Values(s.took))
	f := figures{answered: len(took), failed: len(s.failed), repeated: s.repeated}
	if len(took) > 0 {
		f.p99, f.longest = took[len(took)*99/100], took[len(took)-1]
	}
	return f
}

// forgive drops the failures of requests that were sent before a moment, and
// says how many there were.
func (s *steady) forgive(before time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.failed)
	s.failed = slices.DeleteFunc(s.failed, func(f Failure) bool { return f.Begun.Before(before) })
	return n - len(s.failed)
}

// none asserts that no request failed. It logs the figures.
func (s *steady) none(t *testing.T) figures {
	t.Helper()
	f := s.figures()
	t.Log(f)
	if f.failed > 0 {
		t.Errorf("%d requests failed, the first: %v", f.failed, s.failed[:min(5, f.failed)])
	}
	if f.answered == 0 {
		t.Error("the load did nothing")
	}
	return f
}

// unnoticed asserts that nobody had to send a request twice, either.
func (s *steady) unnoticed(t *testing.T) figures {
	t.Helper()
	f := s.none(t)
	if f.repeated > 0 {
		t.Errorf("%d requests met the end of their connection and were repeated, want none", f.repeated)
	}
	return f
}

// slower is how many answers took longer than limit.
func (s *steady) slower(limit time.Duration) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, took := range s.took {
		if took > limit {
			n++
		}
	}
	return n
}
