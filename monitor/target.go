package monitor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

const (
	readTimeout = 500 * time.Millisecond // of one process's metrics
	readLimit   = 4 << 20                // bytes of one reading
	seriesLimit = 3000                   // series of one process; more are left out
	protobuf    = "application/vnd.google.protobuf"
	accept      = protobuf + ";proto=io.prometheus.client.MetricFamily;encoding=delimited"
)

// target is one process of this server, whose metrics are read from its socket.
type target struct {
	name    string // of the process
	client  *http.Client
	request *http.Request

	body   bytes.Buffer
	err    error     // of the last fetch
	again  time.Time // not before then, after an error
	delay  time.Duration
	series map[string]*series
	read   uint64    // number of readings
	at     time.Time // of the last reading
}

// newTarget returns the target behind the socket at path.
func newTarget(name, path string) *target {
	t := &target{name: name, series: map[string]*series{}}
	t.client = &http.Client{Transport: &http.Transport{
		MaxIdleConns:       1,
		IdleConnTimeout:    10 * time.Second,
		DisableCompression: true,
		ReadBufferSize:     16 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	t.request, _ = http.NewRequest(http.MethodGet, "http://process/metrics", nil)
	t.request.Header.Set("Accept", accept)
	return t
}

// fetch reads the metrics into body. After errors it waits longer and longer,
// up to ten seconds, so that a hung process costs little.
func (t *target) fetch(ctx context.Context, now time.Time) {
	if now.Before(t.again) {
		return
	}
	if t.err = t.get(ctx); t.err == nil {
		t.delay = 0
		return
	}
	t.delay = min(max(2*t.delay, time.Second), 10*time.Second)
	t.again = now.Add(t.delay - 100*time.Millisecond)
}

func (t *target) get(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	res, err := t.client.Do(t.request.WithContext(ctx))
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK || !strings.HasPrefix(res.Header.Get("Content-Type"), protobuf) {
		return fmt.Errorf("read metrics of %s: %s, %s", t.name, res.Status, res.Header.Get("Content-Type"))
	}
	t.body.Reset()
	_, err = t.body.ReadFrom(io.LimitReader(res.Body, readLimit))
	return err
}

// take hands the samples in body to k and what they mean to sum.
func (t *target) take(k *sink, server string, now time.Time, sum *totals) {
	t.read++
	elapsed := now.Sub(t.at).Seconds()
	t.at = now
	p := textparse.NewProtobufParser(t.body.Bytes(), false, false, false, false, nil)
	for {
		e, err := p.Next()
		if err != nil { // io.EOF, or what cannot be read: the series then end below
			break
		}
		switch e {
		case textparse.EntrySeries:
			key, _, v := p.Series()
			if s, fresh := t.lookup(key, p, server); s != nil {
				sum.float(s, v, fresh && t.read == 1, elapsed)
				k.float(s, v)
			}
		case textparse.EntryHistogram:
			key, _, h, fh := p.Histogram()
			if s, fresh := t.lookup(key, p, server); s != nil {
				sum.native(s, h, fh, fresh && t.read == 1)
				k.native(s, h, fh)
			}
		}
	}
	t.forget(k)
}

// lookup returns the series of that key, and whether it is new; nil when there are too many.
func (t *target) lookup(key []byte, p textparse.Parser, server string) (s *series, fresh bool) {
	s = t.series[string(key)]
	if s == nil {
		if len(t.series) >= seriesLimit {
			return nil, false
		}
		var own labels.Labels
		p.Labels(&own)
		b := labels.NewBuilder(own)
		b.Set("server", server)
		if !own.Has("process") { // node speaks of the others too
			b.Set("process", t.name)
		}
		s = &series{labels: b.Labels(), meaning: meaningOf(own, t.name)}
		t.series[string(key)] = s
		fresh = true
	}
	s.seen = t.read
	return s, fresh
}

// forget ends the series that the last reading did not have.
func (t *target) forget(k *sink) {
	for key, s := range t.series {
		if s.seen != t.read {
			k.stale(s)
			delete(t.series, key)
		}
	}
}

// close ends all series and the connection.
func (t *target) close(k *sink) {
	for _, s := range t.series {
		k.stale(s)
	}
	clear(t.series)
	t.client.CloseIdleConnections()
}
