// Package measure is what the benchmarks of the lab share: the machine, what
// its processes use, and the table of what was found.
package measure

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is all that a run found.
type Report struct {
	Machine Machine  `json:"machine"`
	Figures []Figure `json:"figures"`
}

// Figure is one measurement.
type Figure struct {
	Group   string  `json:"group"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Goal    float64 `json:"goal,omitempty"` // the value has to stay below it; 0: there is none
	Reached *bool   `json:"reached,omitempty"`
}

// Add notes a figure; a goal of 0 is none.
func (r *Report) Add(group, name string, value float64, unit string, goal float64) {
	f := Figure{Group: group, Name: name, Value: value, Unit: unit, Goal: goal}
	if goal > 0 {
		reached := value < goal
		f.Reached = &reached
	}
	r.Figures = append(r.Figures, f)
}

// Print writes the table.
func (r *Report) Print(w io.Writer) error {
	m := r.Machine
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := [][]any{
		{"date", m.Date},
		{"machine", fmt.Sprintf("%d cores, %.0f GiB, %s, Linux %s", m.Cores, m.MemoryGiB, m.System, m.Kernel)},
		{"load before", fmt.Sprintf("%.2f over one minute, %.2f over five", m.Load1, m.Load5)},
		{"versions", fmt.Sprintf("trivet %s, MariaDB %s, %s", m.Trivet, m.MariaDB, m.Go)},
	}
	for _, row := range rows {
		_, _ = fmt.Fprintf(t, "%s\t%s\n", row...)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(t, "\nWHAT\tMEASURED\tGOAL\tREACHED")
	group := ""
	for _, f := range r.Figures {
		if f.Group != group {
			group = f.Group
			_, _ = fmt.Fprintf(t, "%s\t\t\t\n", group)
		}
		_, _ = fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", f.Name, amount(f.Value, f.Unit), f.goal(), f.reached())
	}
	return t.Flush()
}

func (f Figure) goal() string {
	if f.Goal == 0 {
		return ""
	}
	return "< " + amount(f.Goal, f.Unit)
}

func (f Figure) reached() string {
	switch {
	case f.Reached == nil:
		return ""
	case *f.Reached:
		return "yes"
	}
	return "NO"
}

// amount writes a value with as many digits as it is worth.
func amount(v float64, unit string) string {
	switch unit {
	case Seconds, Percent:
		return fmt.Sprintf("%.2f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

// Units of figures.
const (
	Seconds    = "s"
	Percent    = "% of a core"
	Micros     = "µs"
	Megabytes  = "MB"
	PerRequest = "µs/request"
	Rows       = "rows"
	Errors     = "errors"
	Requests   = "requests"
	Posts      = "posts"
)
