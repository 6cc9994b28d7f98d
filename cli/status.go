package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"trivet/internal/part"
	"trivet/internal/worker"
	"trivet/lab"
	"trivet/node"
)

var statusCommand = command{
	name: "status", summary: "show the health of every part on every server; exit 1 if not all are healthy",
	example: "trivet status\ntrivet status --json | jq .healthy",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			o := overview(ctx, l)
			if *asJSON {
				err = printJSON(e.out, o)
			} else {
				err = o.print(e.out)
			}
			if err == nil && !o.Healthy {
				return errSaid
			}
			return err
		}
	},
}

// fleet is what all servers say, at one moment.
type fleet struct {
	Healthy       bool           `json:"healthy"`
	Revision      int64          `json:"revision"`
	Quorum        bool           `json:"quorum"`
	AddressHolder string         `json:"address_holder"`
	Writer        string         `json:"writer"`
	Drained       []string       `json:"drained,omitempty"`     // servers that get no new requests
	Spared        bool           `json:"spared,omitempty"`      // but they do, for no other is there
	Maintenance   bool           `json:"maintenance,omitempty"` // every visitor gets the maintenance page
	Servers       []serverStatus `json:"servers"`
}

// serverStatus is one server's word, or why there is none.
type serverStatus struct {
	Server string            `json:"server"`
	Power  string            `json:"power"` // running, off, frozen or cut
	Error  string            `json:"error,omitempty"`
	Parts  []node.PartStatus `json:"parts,omitempty"`

	Cluster string                   `json:"cluster,omitempty"` // why its member of the cluster is not well
	Version string                   `json:"version,omitempty"`
	Build   string                   `json:"build,omitempty"`   // of node's binary
	Workers map[string]worker.Status `json:"workers,omitempty"` // with their builds
	status  node.Status
}

const statusLimit = 3 * time.Second

// overview asks all servers at once.
func overview(ctx context.Context, l *lab.Lab) fleet {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	names := l.Servers
	o := fleet{Servers: make([]serverStatus, len(names))}
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { o.Servers[i] = ask(ctx, l, name) })
	}
	wg.Wait()
	o.summarise()
	return o
}

func ask(ctx context.Context, l *lab.Lab, name string) serverStatus {
	s := serverStatus{Server: name}
	power, err := l.State(name)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	s.Power = string(power)
	if power == lab.Off || power == lab.Frozen {
		s.Error = fmt.Sprintf("it is %s; `trivet lab start %s` starts it", power, name)
		return s
	}
	if s.status, err = client(l, name).Status(ctx); err != nil {
		s.Error = err.Error()
	}
	s.Parts, s.Cluster = s.status.Parts, s.status.Cluster
	s.Version, s.Build, s.Workers = s.status.Version, s.status.Build, s.status.Workers
	return s
}

// summarise takes what the servers agree on from those that have quorum, and finds whether all is well.
func (o *fleet) summarise() {
	o.Healthy = true
	for _, s := range o.Servers {
		st := s.status
		if st.Quorum || o.Revision == 0 {
			o.Quorum = o.Quorum || st.Quorum
			o.Revision = max(o.Revision, st.Revision)
			o.Drained, o.Spared = drainedMembers(st.Members)
			o.Maintenance = st.Maintenance
			if st.AddressHolder != "" {
				o.AddressHolder = st.AddressHolder
			}
			if st.Writer != "" {
				o.Writer = st.Writer
			}
		}
		if s.Error != "" || s.Power != string(lab.Running) || !st.Quorum || s.Cluster != "" || len(s.Parts) == 0 {
			o.Healthy = false
		}
		for _, p := range s.Parts {
			o.Healthy = o.Healthy && p.Healthy
		}
	}
	if !o.Quorum {
		o.Writer = "" // the last agreed one may be gone, and no server may write
	}
	o.Healthy = o.Healthy && o.AddressHolder != "" && o.Writer != ""
}

// drainedMembers are those that are drained; spared is true if balancers do
// not follow that, because nobody else is there.
func drainedMembers(members []part.Member) (names []string, spared bool) {
	others := false
	for _, m := range members {
		if m.Drained {
			names = append(names, m.Name)
		}
		others = others || m.Alive && !m.Drained
	}
	return names, len(names) > 0 && !others
}

func (o *fleet) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(t, "SERVER\t%s\t\n", strings.ToUpper(strings.Join(part.Names, "\t")))
	var notes []string
	for _, s := range o.Servers {
		cells := make([]string, 0, len(part.Names))
		for _, name := range part.Names {
			cell, note := s.cell(name)
			cells = append(cells, cell)
			if note != "" {
				notes = append(notes, fmt.Sprintf("%s %s: %s", s.Server, name, note))
			}
		}
		if note := s.note(o.Quorum); note != "" {
			notes = append(notes, note)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", s.Server, strings.Join(cells, "\t"), strings.Join(o.roles(s.Server), ", "))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return o.printNotes(w, notes)
}

// note is what is wrong with the server beside its parts, empty if nothing is.
// Where no server has quorum, that is not said of each.
func (s serverStatus) note(quorum bool) string {
	switch {
	case s.Error != "":
		return fmt.Sprintf("%s: %s", s.Server, s.Error)
	case s.Power != string(lab.Running):
		return fmt.Sprintf("%s: it is %s; `trivet lab heal %s` plugs it in", s.Server, s.Power, s.Server)
	case s.Cluster != "" && quorum:
		return fmt.Sprintf("%s cluster: %s", s.Server, s.Cluster)
	}
	return ""
}

func (o *fleet) printNotes(w io.Writer, notes []string) error {
	if !o.Quorum {
		notes = append(notes, "the cluster has no quorum: the site goes on as it is; there is no writer, and writes and changes wait until two servers are back")
	} else {
		if o.AddressHolder == "" {
			notes = append(notes, "no server holds the floating address")
		}
		if o.Writer == "" {
			notes = append(notes, "no server takes the database's writes")
		}
	}
	if len(notes) == 0 {
		notes = []string{fmt.Sprintf("all parts are healthy; revision %d", o.Revision)}
	}
	notes = append(notes, o.remarks()...)
	_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
	return err
}

// remarks are on what is so because somebody wanted it.
func (o *fleet) remarks() []string {
	var r []string
	if o.Maintenance {
		r = append(r, "maintenance: every visitor gets the maintenance page; balancer.maintenance.on: false and `trivet apply` end it")
	}
	for _, s := range o.Servers {
		for _, name := range slices.Sorted(maps.Keys(s.Workers)) {
			w := s.Workers[name]
			if w.HandOver != "" {
				r = append(r, fmt.Sprintf("%s: %s; the former process serves on", s.Server, w.HandOver))
			}
			if n := len(w.Retiring); n > 0 {
				r = append(r, fmt.Sprintf("%s %s: former processes that finish their open connections: %d", s.Server, name, n))
			}
		}
	}
	for _, s := range o.Drained {
		if o.Spared {
			r = append(r, fmt.Sprintf("%s is drained, but gets requests all the same: no server is there that is not drained", s))
			continue
		}
		r = append(r, fmt.Sprintf("%s is drained: it gets no new requests; `trivet undrain %s` takes it back", s, s))
	}
	return r
}

// cell is the word for one part, and the reason if it is not well.
func (s serverStatus) cell(name string) (word, note string) {
	for _, p := range s.Parts {
		if p.Name == name {
			if p.Healthy {
				return "ok", ""
			}
			return "DOWN", p.Problem
		}
	}
	return "-", ""
}

func (o *fleet) roles(server string) []string {
	var r []string
	if o.AddressHolder == server {
		r = append(r, "address")
	}
	if o.Writer == server {
		r = append(r, "writer")
	}
	if slices.Contains(o.Drained, server) {
		r = append(r, "drained")
	}
	return r
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
