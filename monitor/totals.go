package monitor

import (
	"math"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"trivet/internal/overview"
	"trivet/internal/part"
)

// meaning is what the summary of a second makes of a series.
type meaning uint8

const (
	meansNothing meaning = iota
	meansRequest
	meansServed
	meansError // a request, and answered with 5xx
	meansLatency
	meansInFlight
	meansQuery
	meansDropped
	meansProcess // its value is a pid
	meansWatched // a built-in alert is on it
)

// meaningOf says what a series of a process means. Visitors' requests are
// counted where they arrive: at the balancer, also at one that has handed over
// to another and finishes, and with passthrough at the web server.
func meaningOf(l labels.Labels, process string) meaning {
	process, _, _ = strings.Cut(process, retiring)
	switch name := l.Get(model.MetricNameLabel); {
	case name == "trivet_database_queries_total":
		return meansQuery
	case name == "trivet_firewall_dropped_packets_total":
		return meansDropped
	case name == "trivet_process_pid":
		return meansProcess
	case watched(name):
		return meansWatched
	case name == "trivet_web_requests_total":
		return meansServed
	case process != part.Balancer && process != part.Web:
		return meansNothing
	case name == "trivet_requests_total":
		if code := l.Get("code"); len(code) == 3 && code[0] == '5' {
			return meansError
		}
		return meansRequest
	case name == "trivet_request_seconds":
		return meansLatency
	case name == "trivet_in_flight":
		return meansInFlight
	}
	return meansNothing
}

// totals sums up one second of all processes.
type totals struct {
	requests, served, errors, queries, dropped, inFlight float64
	latency                                              *histogram.FloatHistogram // of this second alone
	pids                                                 map[int]string            // what runs here, by pid
	watched                                              map[string]float64        // by name
}

// float counts what v says beyond the value before. unknown means that there
// is no value before: the process is read for the first time. A series that is
// new in a known process began at zero.
func (t *totals) float(s *series, v float64, unknown bool, elapsed float64) {
	if s.meaning == meansNothing {
		return
	}
	switch s.meaning {
	case meansInFlight:
		t.inFlight += v
		return
	case meansProcess:
		t.run(int(v), s.labels.Get("process"))
		return
	case meansWatched:
		t.watch(s.labels.Get(model.MetricNameLabel), v)
		return
	}
	grown := v - s.value
	if grown < 0 { // the process began anew
		grown = v
	}
	s.value = v
	if unknown || elapsed <= 0 {
		return
	}
	rate := grown / elapsed
	switch s.meaning {
	case meansRequest:
		t.requests += rate
	case meansServed:
		t.served += rate
	case meansError:
		t.requests += rate
		t.errors += rate
	case meansQuery:
		t.queries += rate
	case meansDropped:
		t.dropped += rate
	}
}

// run takes note of a process. The app's instances are one to whoever looks.
func (t *totals) run(pid int, name string) {
	if t.pids == nil {
		t.pids = map[int]string{}
	}
	if strings.HasPrefix(name, part.App+"-") {
		name = part.App
	}
	t.pids[pid] = name
}

// watch keeps the highest of the gauges of that name.
func (t *totals) watch(name string, v float64) {
	if t.watched == nil {
		t.watched = map[string]float64{}
	}
	if was, ok := t.watched[name]; !ok || v > was {
		t.watched[name] = v
	}
}

// native counts what a histogram holds beyond the one before.
func (t *totals) native(s *series, h *histogram.Histogram, fh *histogram.FloatHistogram, unknown bool) {
	if s.meaning != meansLatency {
		return
	}
	if s.histogram != nil && count(h, fh) == s.histogram.Count {
		return
	}
	if fh == nil {
		fh = h.ToFloat(nil)
	} else {
		fh = fh.Copy()
	}
	before := s.histogram
	s.histogram = fh
	if !unknown {
		t.addLatency(grown(fh, before))
	}
}

func count(h *histogram.Histogram, fh *histogram.FloatHistogram) float64 {
	if fh != nil {
		return fh.Count
	}
	return float64(h.Count)
}

// grown returns what now holds beyond before, which may be nil.
func grown(now, before *histogram.FloatHistogram) *histogram.FloatHistogram {
	d := now.Copy()
	if before == nil || now.DetectReset(before) {
		return d
	}
	d, _, _, err := d.Sub(before)
	if err != nil {
		return nil
	}
	return d
}

func (t *totals) addLatency(h *histogram.FloatHistogram) {
	if h == nil {
		return
	}
	if t.latency == nil {
		t.latency = h
		return
	}
	if sum, _, _, err := t.latency.Add(h); err == nil {
		t.latency = sum
	}
}

// fill writes the totals into p.
func (t *totals) fill(p *overview.Point) {
	p.QPS = float32(t.requests)
	p.Served = float32(t.served)
	p.Errors = float32(t.errors)
	p.Queries = float32(t.queries)
	p.Dropped = float32(t.dropped)
	p.InFlight = float32(t.inFlight)
	p.P50 = float32(1000 * quantile(t.latency, 0.50))
	p.P99 = float32(1000 * quantile(t.latency, 0.99))
}

// quantile is the value below which the share q of h lies, interpolated within
// its bucket on the histogram's own exponential scale; 0 if h holds nothing.
func quantile(h *histogram.FloatHistogram, q float64) float64 {
	if h == nil || h.Count <= 0 {
		return 0
	}
	rank, below := q*h.Count, 0.0
	last := 0.0
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count <= 0 {
			continue
		}
		last = b.Upper
		if below+b.Count >= rank {
			return within(b, (rank-below)/b.Count)
		}
		below += b.Count
	}
	return last
}

func within(b histogram.Bucket[float64], share float64) float64 {
	if b.Lower <= 0 || math.IsInf(b.Upper, 1) {
		return max(b.Upper, 0) * share
	}
	return b.Lower * math.Pow(b.Upper/b.Lower, share)
}
