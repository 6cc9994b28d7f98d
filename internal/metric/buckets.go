package metric

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Buckets are a native histogram that was counted elsewhere. Bucket i ends at
// 2^(i/2^Schema).
type Buckets struct {
	Schema   int32
	Count    uint64
	Sum      float64
	Positive map[int]int64 // by number
}

// HistogramFunc registers a native histogram that f is asked for at each reading.
func (r *Registry) HistogramFunc(name, help string, f func() Buckets) {
	r.r.MustRegister(histogramFunc{prometheus.NewDesc(name, help, nil, nil), f})
}

type histogramFunc struct {
	desc *prometheus.Desc
	f    func() Buckets
}

// Describe implements prometheus.Collector.
func (h histogramFunc) Describe(all chan<- *prometheus.Desc) { all <- h.desc }

// Collect implements prometheus.Collector.
func (h histogramFunc) Collect(all chan<- prometheus.Metric) {
	b := h.f()
	m, err := prometheus.NewConstNativeHistogram(h.desc, b.Count, b.Sum, b.Positive, nil, 0, b.Schema, prometheus.DefNativeHistogramZeroThreshold, time.Time{})
	if err != nil {
		m = prometheus.NewInvalidMetric(h.desc, err)
	}
	all <- m
}
