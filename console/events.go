package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"sort"
	"strconv"
	"time"

	"trivet/internal/overview"
)

// lineTimeout is how long a browser may take to accept an event.
const lineTimeout = 5 * time.Second

// row is a Point as the page wants it: t, qps, errors, p50, p99, cpu, memory,
// queries, in flight, dropped, served. series.js reads it by position.
type row [11]number

// number is written with at most two digits behind the point.
type number float64

// MarshalJSON writes n shortly.
func (n number) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, math.Round(float64(n)*100)/100, 'f', -1, 64), nil
}

// columns makes rows of all servers' points.
func columns(points map[string][]overview.Point) map[string][]row {
	out := make(map[string][]row, len(points))
	for server, list := range points {
		rows := make([]row, len(list))
		for i, p := range list {
			rows[i] = row{
				number(p.Time), number(p.QPS), number(p.Errors), number(p.P50), number(p.P99),
				number(p.CPU), number(p.Memory), number(p.Queries), number(p.InFlight), number(p.Dropped), number(p.Served),
			}
		}
		out[server] = rows
	}
	return out
}

// events streams to the page (HTML standard, section "Server-sent events"):
// "now" when the state differs, "points" each second.
func (c *Console) events(w http.ResponseWriter, r *http.Request) {
	select {
	case c.streams <- struct{}{}:
		defer func() { <-c.streams }()
	default:
		refuse(w, http.StatusServiceUnavailable, "too many pages are open")
		return
	}
	end, _ := c.sessions.of(r)
	ctx, cancel := context.WithDeadline(r.Context(), end)
	defer cancel()
	w.Header().Set("Content-Type", "text/event-stream")
	s := stream{w: w, control: http.NewResponseController(w), sent: map[string]int64{}}
	for {
		next := c.cfg.Source.Next()
		if s.send(c.cfg.Source) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// stream is one browser's connection.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	sent    map[string]int64 // by server: the newest second that was sent
	now     []byte           // the state that was last sent
}

// send writes what the browser does not have yet.
func (s *stream) send(source Source) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(lineTimeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	now, err := json.Marshal(source.Now())
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if !bytes.Equal(now, s.now) {
		s.now = now
		if err := s.event("now", now); err != nil {
			return err
		}
	}
	points, err := json.Marshal(columns(s.fresh(source)))
	if err != nil {
		return fmt.Errorf("encode points: %w", err)
	}
	if err := s.event("points", points); err != nil {
		return err
	}
	return s.control.Flush()
}

// fresh returns the points of the last five minutes that were not sent yet. A
// peer's points may come in late, so each server has a mark of its own.
func (s *stream) fresh(source Source) map[string][]overview.Point {
	points := source.Points(startOf(time.Now()))
	for server, list := range points {
		n := len(list)
		if n == 0 {
			continue
		}
		mark := s.sent[server]
		s.sent[server] = list[n-1].Time // lower than before if the clock was set back
		points[server] = list[sort.Search(n, func(i int) bool { return list[i].Time > mark }):]
	}
	return points
}

func (s *stream) event(name string, data []byte) error {
	_, err := fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, data)
	return err
}
