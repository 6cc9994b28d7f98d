package console_test

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"trivet/internal/overview"
	"trivet/internal/part"
)

// demo is a Source whose three servers are busy: a wave of traffic on s1, which
// holds the address, and the usual noise.
type demo struct {
	mu     sync.Mutex
	points map[string][]overview.Point
	now    overview.Now
	next   chan struct{}
}

// newDemo returns a demo that has been running for an hour. With trouble, s3
// has been gone for two minutes and the database of s2 is joining.
func newDemo(trouble bool) *demo {
	d := &demo{points: map[string][]overview.Point{}, now: demoNow(trouble), next: make(chan struct{})}
	for t := time.Now().Unix() - 3600; t <= time.Now().Unix(); t++ {
		d.add(t, trouble)
	}
	return d
}

func demoNow(trouble bool) overview.Now {
	n := overview.Now{
		Site: "foobar", Domain: "www.foobar.com", Server: "s1", Quorum: true,
		Address: "10.77.0.10", Holder: "s1", Writer: "s2", Parts: part.Names,
	}
	for i, name := range []string{"s1", "s2", "s3"} {
		n.Servers = append(n.Servers, overview.Server{
			Name: name, Address: []string{"10.77.0.11", "10.77.0.12", "10.77.0.13"}[i], Alive: true, Reachable: true,
			Processes: []overview.Process{
				{Name: "mariadbd", CPU: float32(6.1 + 3*float64(i)), Memory: 214 << 20}, {Name: "web", CPU: 4.2, Memory: 31 << 20},
			},
		})
	}
	at := func(ago int64) int64 { return time.Now().Unix() - ago }
	n.Alerts = []overview.Alert{
		{Name: "busy", State: overview.AlertOK, Above: 800, Unit: "requests/s", For: "30s", Since: at(1570)},
		{Name: "flood", State: overview.AlertOK, Above: 5000, Unit: "requests/s", For: "10s"},
	}
	n.Events = []overview.Event{
		{Time: at(640), Text: "Release 3f9a1c20be77 is live"},
		{Time: at(1570), Text: "Alert busy is over: 611 requests/s, threshold 800"},
		{Time: at(1900), Text: "Alert busy fires: 874 requests/s, threshold 800"},
		{Time: at(2400), Text: "The database's writer is now s2"},
		{Time: at(2404), Text: "s1 database is well again"},
	}
	if trouble {
		n.Servers[2].Alive, n.Servers[2].Reachable = false, false
		n.Servers[1].Problems = map[string]string{part.Database: "joining: the state of s1 is being transferred, 62 % done", part.App: "instance 3-2 does not answer /healthz: connection refused"}
		n.Alerts[0].State, n.Alerts[0].Above, n.Alerts[0].Since = overview.AlertFiring, 250, at(44)
		n.Writer = "s1"
		n.Events = append([]overview.Event{
			{Time: at(44), Text: "Alert busy fires: 412 requests/s, threshold 250"},
			{Time: at(95), Text: "s2 database: joining: the state of s1 is being transferred"},
			{Time: at(118), Text: "The database's writer is now s1"},
			{Time: at(120), Text: "s3 is gone"},
		}, n.Events...)
	}
	return n
}

func (d *demo) add(t int64, trouble bool) {
	wave := 1 + 0.35*math.Sin(float64(t)/170) + 0.15*math.Sin(float64(t)/23)
	noise := func(share float64) float64 { return 1 + share*(2*rand.Float64()-1) }
	for i, s := range d.now.Servers {
		if trouble && i == 2 && t > time.Now().Unix()-120 {
			continue
		}
		p := overview.Point{
			Time: t, CPU: float32((14 + 9*wave - 4*float64(i)) * noise(.2)), Memory: float32(41+3*i) + float32(noise(.1)),
			Queries: float32([]float64{120, 640, 130}[i] * wave * noise(.1)),
		}
		p.QPS = float32([]float64{412, 38, 21}[i] * wave * noise(.08))
		p.Served = float32(157 * wave * noise(.08))
		p.P50, p.P99 = float32(3.8*wave*noise(.1)), float32(21*wave*noise(.3))
		p.InFlight = p.QPS / 90
		if i == 0 && (t%47 < 3 || trouble && t%120 < 9) {
			p.Errors = float32(2 * noise(.8))
		}
		d.points[s.Name] = append(d.points[s.Name], p)
	}
}

// tick adds a second.
func (d *demo) tick(t int64, trouble bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.add(t, trouble)
	close(d.next)
	d.next = make(chan struct{})
}

func (d *demo) Now() overview.Now {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *demo) Points(after int64) map[string][]overview.Point {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[string][]overview.Point{}
	for name, list := range d.points {
		for i, p := range list {
			if p.Time > after {
				out[name] = append([]overview.Point(nil), list[i:]...)
				break
			}
		}
	}
	return out
}

func (d *demo) Next() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.next
}
