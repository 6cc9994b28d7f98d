package monitor

import (
	"math"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
)

// series is one series that is being appended to, with what the next second needs of this one.
type series struct {
	labels     labels.Labels
	meaning    meaning
	ref        storage.SeriesRef // TSDB's, of that generation
	generation int
	seen       uint64 // the reading that last had it
	value      float64
	histogram  *histogram.FloatHistogram // latency only
}

// sink takes the samples of one second.
type sink struct {
	appender   storage.Appender // nil: nothing can be stored
	generation int
	time       int64 // milliseconds
	dropped    int   // samples that TSDB refused, as when the clock was set back
}

// float appends v to s.
func (k *sink) float(s *series, v float64) {
	if k.appender == nil {
		return
	}
	ref, err := k.appender.Append(k.ref(s), s.labels, k.time, v)
	k.keep(s, ref, err)
}

// native appends a native histogram to s; one of h and fh is nil.
func (k *sink) native(s *series, h *histogram.Histogram, fh *histogram.FloatHistogram) {
	if k.appender == nil {
		return
	}
	ref, err := k.appender.AppendHistogram(k.ref(s), s.labels, k.time, h, fh)
	k.keep(s, ref, err)
}

// stale says that s has ended.
func (k *sink) stale(s *series) { k.float(s, math.Float64frombits(value.StaleNaN)) }

func (k *sink) ref(s *series) storage.SeriesRef {
	if s.generation != k.generation {
		return 0
	}
	return s.ref
}

func (k *sink) keep(s *series, ref storage.SeriesRef, err error) {
	if err != nil {
		k.dropped++
		return
	}
	s.ref, s.generation = ref, k.generation
}

// gauges are series that the monitor measures itself, by name and one label.
type gauges struct {
	server string
	known  map[gauge]*series
}

type gauge struct{ name, label, value string }

// set appends v to the series name{label=value, server=…}.
func (g *gauges) set(k *sink, name, label, value string, v float64) {
	key := gauge{name, label, value}
	s := g.known[key]
	if s == nil {
		s = &series{labels: labels.FromStrings(model.MetricNameLabel, name, "server", g.server, label, value)}
		g.known[key] = s
	}
	k.float(s, v)
}
