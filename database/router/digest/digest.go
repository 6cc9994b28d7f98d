// Package digest counts what an app asks of its database, by statement.
// Statements that differ only in their literals are one: literals become ?,
// lists of them (?+), of an INSERT's rows the first one stays, and comments and
// space go. No literal is kept, shown or logged.
//
// A table is bounded: the digests that were used least make place, and what
// was counted of them is summed. A statement is looked at up to 4 KiB.
package digest

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"trivet/internal/metric"
)

const (
	most        = 500         // digests at a time
	mostShown   = 100         // of those, in a report
	mostSlow    = 100         // slow statements that are remembered
	mostLogged  = 5           // slow statements a second that are logged one by one
	defaultSlow = time.Second // what takes longer is slow
)

// Statement is one that has ended.
type Statement struct {
	Text   []byte // or its beginning; empty if it was not kept
	Plain  bool   // a backslash in its strings is itself
	Took   time.Duration
	Failed bool
	Rows   uint64 // that it returned
}

// Totals are what statements came to, all together.
type Totals struct {
	Count  uint64        `json:"count"`
	Errors uint64        `json:"errors"`
	Slow   uint64        `json:"slow"`
	Rows   uint64        `json:"rows"` // returned
	Time   time.Duration `json:"time"` // nanoseconds
	Max    time.Duration `json:"max"`  // nanoseconds
}

// Add adds o.
func (t *Totals) Add(o Totals) {
	t.Count += o.Count
	t.Errors += o.Errors
	t.Slow += o.Slow
	t.Rows += o.Rows
	t.Time += o.Time
	t.Max = max(t.Max, o.Max)
}

// Digest is what is known of all statements of one form.
type Digest struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	Totals
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Times []Bucket  `json:"times"`
}

// Slow is one slow statement.
type Slow struct {
	At     time.Time     `json:"at"` // when it ended
	ID     string        `json:"id"` // of its digest
	Text   string        `json:"text"`
	Took   time.Duration `json:"took"` // nanoseconds
	Failed bool          `json:"failed,omitempty"`
}

// Report is what a table holds.
type Report struct {
	Since   time.Time     `json:"since"`   // when it began
	Slow    time.Duration `json:"slow"`    // from which on a statement is slow; nanoseconds
	All     Totals        `json:"all"`     // statements
	Times   []Bucket      `json:"times"`   // of all
	Digests []Digest      `json:"digests"` // those that took the most time together, the most first
	Others  Totals        `json:"others"`  // of what is not among them
	Slowest []Slow        `json:"slowest"` // the last that were slow, the last one first
}

// entry is a digest in a table.
type entry struct {
	hash        uint64
	text        string
	uses        uint64 // halved from time to time, so that what was once used much goes too
	totals      Totals
	first, last time.Time
	times       histogram
}

// Table counts statements. Its methods may be called concurrently.
type Table struct {
	log   *slog.Logger
	slow  atomic.Int64 // nanoseconds
	since time.Time

	mu      sync.Mutex
	digests map[uint64]*entry
	others  Totals // of digests that made place
	all     Totals
	times   histogram
	evicted int
	ring    [mostSlow]Slow
	ringed  int // slow statements that were ever in it
	logging logging
}

// logging bounds what is logged in a second.
type logging struct {
	second time.Time
	n      int
	more   int // that were not logged since the last one that was
}

// New returns an empty table, whose sums are in m.
func New(log *slog.Logger, m *metric.Registry) *Table {
	t := &Table{log: log, since: time.Now(), digests: make(map[uint64]*entry, most)}
	t.slow.Store(int64(defaultSlow))
	m.HistogramFunc("trivet_router_statement_seconds", "Time that the app waited for its statements.", t.measure)
	m.CounterFunc("trivet_router_slow_statements_total", "Statements that took longer than database.slow_query.", func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(t.all.Slow)
	})
	return t
}

// SlowFrom sets from when on a statement is slow; 0 is the default.
func (t *Table) SlowFrom(d time.Duration) { t.slow.Store(int64(cmp.Or(d, defaultSlow))) }

// Observe counts s. It does not keep its text.
func (t *Table) Observe(s Statement) {
	var f folder
	f.fold(s.Text, s.Plain)
	slow := s.Took >= time.Duration(t.slow.Load())
	one := Totals{Count: 1, Rows: s.Rows, Time: s.Took, Max: s.Took}
	if s.Failed {
		one.Errors = 1
	}
	if slow {
		one.Slow = 1
	}
	now := time.Now()
	t.mu.Lock()
	e := t.digests[f.hash]
	if e == nil {
		e = t.insert(f.hash, f.shown(), now)
	}
	e.uses++
	e.last = now
	e.totals.Add(one)
	e.times.add(s.Took)
	t.all.Add(one)
	t.times.add(s.Took)
	report, more := slow && t.note(e, s, now), 0
	if report {
		more, t.logging.more = t.logging.more, 0
	}
	text := e.text
	t.mu.Unlock()
	if report {
		t.log.Warn("slow statement", "took", s.Took.Round(time.Millisecond), "failed", s.Failed, "digest", name(f.hash), "statement", text, "unlogged", more)
	}
}

// insert makes a new entry. It is called under mu.
func (t *Table) insert(hash uint64, text string, now time.Time) *entry {
	if len(t.digests) >= most {
		t.evict()
	}
	e := &entry{hash: hash, text: cmp.Or(text, "(not kept)"), first: now}
	t.digests[hash] = e
	return e
}

// evict takes the digest away that was used least, of several the one that
// rests the longest. It is called under mu.
func (t *Table) evict() {
	var least *entry
	for _, e := range t.digests {
		if least == nil || e.uses < least.uses || e.uses == least.uses && e.last.Before(least.last) {
			least = e
		}
	}
	t.others.Add(least.totals)
	delete(t.digests, least.hash)
	if t.evicted++; t.evicted%most == 0 {
		for _, e := range t.digests {
			e.uses /= 2
		}
	}
}

// note remembers a slow statement, and reports whether it is to be logged. It
// is called under mu.
func (t *Table) note(e *entry, s Statement, now time.Time) bool {
	t.ring[t.ringed%mostSlow] = Slow{now, name(e.hash), e.text, s.Took, s.Failed}
	t.ringed++
	l := &t.logging
	if now.Sub(l.second) >= time.Second {
		l.second, l.n = now, 0
	}
	if l.n == mostLogged {
		l.more++
		return false
	}
	l.n++
	return true
}

// measure is the histogram of all statements, for the metrics.
func (t *Table) measure() metric.Buckets {
	t.mu.Lock()
	times, all := t.times, t.all
	t.mu.Unlock()
	b := metric.Buckets{Schema: Schema, Count: all.Count, Sum: all.Time.Seconds(), Positive: map[int]int64{}}
	for _, one := range times.list() {
		b.Positive[one.Number] = int64(one.Count)
	}
	return b
}

// Report returns what the table holds.
func (t *Table) Report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Report{
		Since: t.since, Slow: time.Duration(t.slow.Load()), All: t.all, Times: t.times.list(), Others: t.others,
		Digests: []Digest{}, Slowest: []Slow{},
	}
	all := slices.SortedFunc(maps.Values(t.digests), func(a, b *entry) int {
		return cmp.Or(cmp.Compare(b.totals.Time, a.totals.Time), cmp.Compare(a.hash, b.hash))
	})
	for i, e := range all {
		if i >= mostShown {
			r.Others.Add(e.totals)
			continue
		}
		r.Digests = append(r.Digests, Digest{
			ID: name(e.hash), Text: e.text, Totals: e.totals, First: e.first, Last: e.last, Times: e.times.list(),
		})
	}
	for i := range min(t.ringed, mostSlow) {
		r.Slowest = append(r.Slowest, t.ring[(t.ringed-1-i)%mostSlow])
	}
	return r
}

// Merge puts the reports of several tables together.
func Merge(reports ...Report) Report {
	r := Report{Digests: []Digest{}, Slowest: []Slow{}}
	known := map[string]int{}
	for _, one := range reports {
		if r.Since.IsZero() || one.Since.Before(r.Since) {
			r.Since = one.Since
		}
		r.Slow = max(r.Slow, one.Slow)
		r.All.Add(one.All)
		r.Others.Add(one.Others)
		r.Times = mergeBuckets(r.Times, one.Times)
		r.Slowest = append(r.Slowest, one.Slowest...)
		for _, d := range one.Digests {
			i, ok := known[d.ID]
			if !ok {
				known[d.ID] = len(r.Digests)
				r.Digests = append(r.Digests, d)
				continue
			}
			r.Digests[i].merge(d)
		}
	}
	slices.SortFunc(r.Digests, func(a, b Digest) int { return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(a.ID, b.ID)) })
	slices.SortStableFunc(r.Slowest, func(a, b Slow) int { return b.At.Compare(a.At) })
	return r
}

func (d *Digest) merge(o Digest) {
	d.Add(o.Totals)
	d.Times = mergeBuckets(d.Times, o.Times)
	if o.First.Before(d.First) {
		d.First = o.First
	}
	if o.Last.After(d.Last) {
		d.Last = o.Last
	}
}

// name is a digest's in words.
func name(hash uint64) string { return fmt.Sprintf("%016x", hash) }
