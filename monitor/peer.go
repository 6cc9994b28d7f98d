package monitor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/overview"
	"trivet/internal/part"
	"trivet/internal/process"
)

// silence is how long a peer's stream may say nothing before it is dialled anew.
const silence = 5 * time.Second

// follow keeps a stream from every other server that the state names.
func (m *Monitor) follow(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	streams := map[peer]context.CancelFunc{}
	for {
		next := m.applied.next()
		if s := m.state.Load(); s != nil {
			m.adjust(ctx, &wg, streams, *s)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// peer is another server, as far as its stream is concerned.
type peer struct{ name, address string }

// adjust starts the streams that are missing and ends those of servers that went.
func (m *Monitor) adjust(ctx context.Context, wg *sync.WaitGroup, streams map[peer]context.CancelFunc, s part.State) {
	wanted := map[peer]bool{}
	for _, member := range s.Members {
		if member.Name != s.Server {
			wanted[peer{member.Name, member.Address}] = true
		}
	}
	for p, cancel := range streams {
		if !wanted[p] {
			cancel()
			delete(streams, p)
		}
	}
	for p := range wanted {
		if streams[p] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		streams[p] = cancel
		wg.Go(func() {
			defer cancel()
			m.hear(ctx, p)
		})
	}
}

// hear takes in the points of p, again and again, until ctx ends.
func (m *Monitor) hear(ctx context.Context, p peer) {
	client := &http.Client{Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		TLSClientConfig:       mtls.Client(&m.tls, p.name, part.Monitor),
		TLSHandshakeTimeout:   2 * time.Second,
		ResponseHeaderTimeout: 2 * time.Second,
		MaxIdleConns:          1,
		DisableKeepAlives:     true,
	}}
	back := process.Backoff{Min: 500 * time.Millisecond, Max: 4 * time.Second}
	for {
		heard, err := m.stream(ctx, client, p)
		if heard {
			back.Reset()
		}
		m.cfg.Log.Debug("stream of peer ended", "server", p.name, "err", err)
		if back.Wait(ctx) != nil {
			return
		}
	}
}

// stream reads one stream to its end, and reports whether it brought anything.
func (m *Monitor) stream(ctx context.Context, client *http.Client, p peer) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	after := int64(0)
	if last, ok := m.ring(p.name).Last(); ok {
		after = last.Time
	}
	url := "https://" + net.JoinHostPort(p.address, strconv.Itoa(m.cfg.PeerPort)) + "/v1/stream?after=" + strconv.FormatInt(after, 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, fmt.Errorf("make request: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("answer is %s", res.Status)
	}
	alarm := time.AfterFunc(silence, cancel)
	defer alarm.Stop()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		alarm.Reset(silence)
		var f overview.Frame
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			return heard, fmt.Errorf("decode point: %w", err)
		}
		m.add(p.name, f)
		heard = true
	}
	return heard, lines.Err()
}
