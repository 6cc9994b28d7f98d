package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"trivet/internal/part"
)

// progress shows how the servers come up: on a terminal a table that is drawn
// anew in its place, elsewhere a line whenever a part's health changes.
type progress struct {
	out     io.Writer
	live    bool
	begun   time.Time
	drawn   int               // lines of the table on the screen
	told    map[string]string // by "server part": what was last said
	servers []string
}

func newProgress(out io.Writer, servers []string) *progress {
	return &progress{
		out: out, live: terminal(out), begun: time.Now(),
		told: map[string]string{}, servers: servers,
	}
}

func (p *progress) say(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, "%5.1f s  %s\n", time.Since(p.begun).Seconds(), fmt.Sprintf(format, args...))
}

// quietly says what begins, and gives a writer that swallows the details.
func (p *progress) quietly(what string) io.Writer {
	p.say("%s", what)
	return io.Discard
}

func (p *progress) show(o fleet) {
	if p.live {
		p.draw(o)
		return
	}
	for _, s := range o.Servers {
		for _, ps := range s.Parts {
			p.tell(s.Server+" "+ps.Name, ps.Healthy, ps.Problem)
		}
	}
}

// seen takes what is healthy already for told, so that only changes are shown.
func (p *progress) seen(o fleet) {
	for _, s := range o.Servers {
		for _, ps := range s.Parts {
			if ps.Healthy {
				p.told[s.Server+" "+ps.Name] = "healthy"
			}
		}
	}
}

// tell prints a line when a part has become healthy, or is no longer.
func (p *progress) tell(what string, healthy bool, problem string) {
	word := "healthy"
	if !healthy {
		word = problem
	}
	was := p.told[what]
	p.told[what] = word
	if healthy && was != word {
		p.say("%s is healthy", what)
	}
	if !healthy && was == "healthy" {
		p.say("%s: %s", what, problem)
	}
}

// draw replaces the table on the terminal.
func (p *progress) draw(o fleet) {
	var b bytes.Buffer
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	fmt.Fprintf(&b, "\x1b[2K%5.1f s  ", time.Since(p.begun).Seconds())
	for _, name := range part.Names {
		fmt.Fprintf(&b, " %-11s", name)
	}
	b.WriteString("\n")
	waits := ""
	for _, s := range o.Servers {
		fmt.Fprintf(&b, "\x1b[2K  %-7s", s.Server)
		for _, name := range part.Names {
			word, note := s.cell(name)
			if note != "" {
				waits = s.Server + " " + name + ": " + note
			}
			mark := "\x1b[32m✓\x1b[0m"
			if word != "ok" {
				mark = "\x1b[33m…\x1b[0m"
			}
			fmt.Fprintf(&b, " %s%s", mark, strings.Repeat(" ", 10))
		}
		b.WriteString("\n")
	}
	if len(waits) > 78 {
		waits = waits[:78]
	}
	fmt.Fprintf(&b, "\x1b[2K%s\n", waits)
	p.drawn = len(o.Servers) + 2
	_, _ = p.out.Write(b.Bytes())
}

// end leaves the table as it is; what is said next comes below it.
func (p *progress) end() { p.drawn = 0 }
