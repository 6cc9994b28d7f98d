package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"trivet/internal/host"
)

// Report is all that a run found.
type Report struct {
	Machine Machine   `json:"machine"`
	Scenes  []Outcome `json:"scenes"`
}

// Machine is what the figures hold for.
type Machine struct {
	Date      string  `json:"date"`
	Cores     int     `json:"cores"`
	MemoryGiB float64 `json:"memory_gib"`
	System    string  `json:"system"`
	Kernel    string  `json:"kernel"`
	Load1     float64 `json:"load1"` // before the run: what else the machine had to do
	Versions  string  `json:"versions"`
}

// Outcome is one scene.
type Outcome struct {
	Scene string `json:"scene"`
	Title string `json:"title"`
	Peers []Peer `json:"peers"`
	Goals []Goal `json:"goals,omitempty"`

	scene    scene
	measured []string // names of the peers that trivet is compared with
}

// Peer is what one peer has reached: medians of its rounds.
type Peer struct {
	Name   string  `json:"name"`
	Rate   float64 `json:"requests_per_second,omitempty"`
	CPU    float64 `json:"cpu_us,omitempty"` // for each request
	User   float64 `json:"user_us,omitempty"`
	P50    float64 `json:"p50_ms,omitempty"` // at 70 % of Rate
	P99    float64 `json:"p99_ms,omitempty"`
	RSS    float64 `json:"rss_mb"`
	Memory float64 `json:"kb_per_connection,omitempty"`
	Ratio  float64 `json:"ratio"`  // of CPU, or of Memory, to the best peer's: the median of all rounds, each with itself
	Others float64 `json:"others"` // cores that others have used meanwhile, the most of all rounds
	Spread float64 `json:"spread"` // of CPU between rounds: the largest less the smallest, by the median

	rounds []sample
}

// Goal is one that trivet is held to in a scene.
type Goal struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Most    float64 `json:"most"`
	Reached bool    `json:"reached"`
}

// median of what f says of each.
func median(all []sample, f func(int, sample) float64) float64 {
	values := make([]float64, len(all))
	for i, s := range all {
		values[i] = f(i, s)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// middle returns the medians of a peer's rounds.
func middle(name string, all []sample) Peer {
	of := func(f func(sample) float64) float64 {
		return median(all, func(_ int, s sample) float64 { return f(s) })
	}
	p := Peer{
		Name: name, rounds: all,
		Rate:   of(func(s sample) float64 { return s.Rate }),
		CPU:    of(func(s sample) float64 { return s.CPU }),
		User:   of(func(s sample) float64 { return s.User }),
		P50:    of(func(s sample) float64 { return s.P50 }),
		P99:    of(func(s sample) float64 { return s.P99 }),
		RSS:    of(func(s sample) float64 { return s.RSS }),
		Memory: of(func(s sample) float64 { return s.Memory }),
	}
	least, most := math.Inf(1), 0.0
	for _, s := range all {
		p.Others = max(p.Others, s.Others)
		least, most = min(least, s.CPU), max(most, s.CPU)
	}
	if p.CPU > 0 {
		p.Spread = (most - least) / p.CPU
	}
	return p
}

// cost is what a scene compares.
func (p Peer) cost() float64 { return max(p.CPU, p.Memory) }

// by is p's cost as a share of other's. The machine is not as fast in one
// second as in another, so each round is compared with itself.
func (p Peer) by(other Peer) float64 {
	if len(p.rounds) != len(other.rounds) || other.cost() <= 0 {
		return 0
	}
	return median(p.rounds, func(i int, s sample) float64 { return s.cost() / other.rounds[i].cost() })
}

func (s sample) cost() float64 { return max(s.CPU, s.Memory) }

// compare fills the ratios, and says which goals trivet has reached. The best
// peer is a program that users run; net/http has a goal of its own.
func (o *Outcome) compare() {
	var best *Peer
	for i := range o.Peers {
		if p := &o.Peers[i]; p.Name != netHTTP && slices.Contains(o.measured, p.Name) && (best == nil || p.cost() < best.cost()) {
			best = p
		}
	}
	if best == nil {
		return
	}
	for i := range o.Peers {
		o.Peers[i].Ratio = o.Peers[i].by(*best)
	}
	us, stock := o.peer(ours), o.peer(netHTTP)
	if us == nil {
		return
	}
	if o.scene.goal > 0 {
		o.hold("CPU by the best peer's", us.Ratio, o.scene.goal)
	}
	if o.scene.kilobytes > 0 {
		o.hold("kB for each connection", us.Memory, o.scene.kilobytes)
	}
	if stock != nil {
		o.hold("by net/http's", us.by(*stock), 0.5)
	}
}

func (o *Outcome) hold(what string, value, most float64) {
	o.Goals = append(o.Goals, Goal{what, value, most, value <= most})
}

func (o *Outcome) peer(name string) *Peer {
	for i := range o.Peers {
		if o.Peers[i].Name == name {
			return &o.Peers[i]
		}
	}
	return nil
}

// head says what the figures hold for.
func (m Machine) head() [][2]string {
	return [][2]string{
		{"date", m.Date},
		{"machine", fmt.Sprintf("%d cores, %.0f GiB, %s, Linux %s", m.Cores, m.MemoryGiB, m.System, m.Kernel)},
		{"load before", fmt.Sprintf("%.2f over one minute", m.Load1)},
		{"versions", m.Versions},
	}
}

// columns of a scene's table.
func (o *Outcome) columns() []string {
	if o.scene.idle {
		return []string{"kB/connection", "RSS MB", "by the best peer's"}
	}
	return []string{"requests/s", "CPU µs/request", "user", "system", "p50 ms", "p99 ms", "RSS MB", "others", "by the best peer's"}
}

func (o *Outcome) row(p Peer) []string {
	rss, ratio := fmt.Sprintf("%.1f", p.RSS), fmt.Sprintf("%.2f", p.Ratio)
	if o.scene.idle {
		return []string{fmt.Sprintf("%.2f", p.Memory), rss, ratio}
	}
	first := []string{
		fmt.Sprintf("%.0f", p.Rate), fmt.Sprintf("%.1f", p.CPU), fmt.Sprintf("%.1f", p.User), fmt.Sprintf("%.1f", p.CPU-p.User),
		fmt.Sprintf("%.2f", p.P50), fmt.Sprintf("%.2f", p.P99),
	}
	return append(first, rss, fmt.Sprintf("%.0f %%", p.Others*100), ratio)
}

// verdict is one line of goals.
func (o *Outcome) verdict() string {
	var out []string
	for _, g := range o.Goals {
		word := "reached"
		if !g.Reached {
			word = "NOT REACHED"
		}
		out = append(out, fmt.Sprintf("%s %.2f, goal %.2f: %s", g.What, g.Value, g.Most, word))
	}
	return strings.Join(out, "; ")
}

// print writes the table for a terminal.
func (r *Report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range r.Machine.head() {
		_, _ = fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
	}
	err := t.Flush()
	for _, o := range r.Scenes {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		_, _ = fmt.Fprintf(w, "\n%s (%s)\n", o.Title, o.Scene)
		_, _ = fmt.Fprintf(t, "\t%s\t\n", strings.Join(o.columns(), "\t"))
		for _, p := range o.Peers {
			_, _ = fmt.Fprintf(t, "%s\t%s\t\n", p.Name, strings.Join(o.row(p), "\t"))
		}
		err = errors.Join(err, t.Flush())
		if verdict := o.verdict(); verdict != "" {
			_, _ = fmt.Fprintln(w, verdict)
		}
	}
	return err
}

// markdown writes the table for docs/performance.md.
func (r *Report) markdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("```\n")
	for _, row := range r.Machine.head() {
		fmt.Fprintf(&b, "%-12s %s\n", row[0], row[1])
	}
	b.WriteString("```\n")
	for _, o := range r.Scenes {
		fmt.Fprintf(&b, "\n### %s (`%s`)\n\n| | %s |\n|---%s|\n", o.Title, o.Scene, strings.Join(o.columns(), " | "), strings.Repeat("|---:", len(o.columns())))
		for _, p := range o.Peers {
			fmt.Fprintf(&b, "| %s | %s |\n", p.Name, strings.Join(o.row(p), " | "))
		}
		if verdict := o.verdict(); verdict != "" {
			fmt.Fprintf(&b, "\n%s\n", verdict)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func machine(ctx context.Context, all []peer) (Machine, error) {
	m := Machine{
		Date:   time.Now().UTC().Format("2006-01-02 15:04 MST"),
		System: host.System(), Kernel: host.Content("/proc/sys/kernel/osrelease"),
	}
	m.Cores = strings.Count(host.Content("/proc/cpuinfo"), "processor\t:") // this process has but one
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("look at memory: %w", err)
	}
	m.MemoryGiB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	if _, err := fmt.Sscan(host.Content("/proc/loadavg"), &m.Load1); err != nil {
		return m, fmt.Errorf("look at the machine's load: %w", err)
	}
	found, err := versions(ctx, all)
	m.Versions = strings.Trim(found+", "+runtime.Version(), ", ")
	return m, err
}
