package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"trivet/internal/part"
	"trivet/lab"
)

var dbStatusCommand = command{
	name: "db status", summary: "show the database's nodes, its writer, and what it waits for; exit 1 if not all are synced",
	example: "trivet db status\ntrivet db status --watch\ntrivet db status --json | jq .writer",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		watch := fs.Bool("watch", false, "show it anew every second, until interrupted")
		return func(ctx context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			show := func() error { return showDatabase(ctx, e, l, *asJSON) }
			if *watch {
				return watching(ctx, e.out, show)
			}
			return show()
		}
	},
}

// dbStatus is the database on all servers at one moment.
type dbStatus struct {
	Synced  bool                  `json:"synced"` // all nodes are, and one takes the writes
	Quorum  bool                  `json:"quorum"` // whether the cluster can agree on who takes the writes
	Writer  string                `json:"writer"`
	Epoch   int64                 `json:"epoch"`
	Nodes   []dbNode              `json:"nodes"`
	Choices []part.DatabaseChoice `json:"choices,omitempty"` // while no node is synced: who could start, and what that would lose
}

// dbNode is one server's node of it.
type dbNode struct {
	Server string               `json:"server"`
	Error  string               `json:"error,omitempty"` // why it cannot be asked
	Node   *part.DatabaseStatus `json:"node,omitempty"`
	Router json.RawMessage      `json:"router,omitempty"` // what its router says of itself

	quorum bool
}

func showDatabase(ctx context.Context, e *env, l *lab.Lab, asJSON bool) error {
	s := databaseOf(inspectDatabase(ctx, l))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := error(nil)
	if asJSON {
		err = printJSON(e.out, s)
	} else {
		err = s.print(e.out, terminal(e.out))
	}
	if err == nil && !s.Synced {
		return errSaid
	}
	return err
}

// inspectDatabase asks all servers at once.
func inspectDatabase(ctx context.Context, l *lab.Lab) []dbNode {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	nodes := make([]dbNode, len(l.Servers))
	var wg sync.WaitGroup
	for i, server := range l.Servers {
		wg.Go(func() { nodes[i] = inspectNode(ctx, l, server) })
	}
	wg.Wait()
	return nodes
}

func inspectNode(ctx context.Context, l *lab.Lab, server string) dbNode {
	n := dbNode{Server: server}
	if s := ask(ctx, l, server); s.Error != "" {
		n.Error = s.Error
		return n
	} else {
		n.quorum = s.status.Quorum
	}
	c := client(l, server)
	data, err := c.Inspect(ctx, part.Database)
	if err == nil {
		n.Node = &part.DatabaseStatus{}
		err = json.Unmarshal(data, n.Node)
	}
	if err != nil {
		n.Node, n.Error = nil, strings.TrimPrefix(err.Error(), server+": ")
	}
	if data, err := c.Inspect(ctx, part.Router); err == nil {
		n.Router = data
	}
	return n
}

// databaseOf puts together what the servers say. Who takes the writes is what
// the newest epoch says; what could be started, only those who can agree on it.
func databaseOf(nodes []dbNode) dbStatus {
	s := dbStatus{Synced: true, Nodes: nodes}
	for _, n := range nodes {
		s.Quorum = s.Quorum || n.quorum
		if n.Node == nil {
			s.Synced = false
			continue
		}
		s.Synced = s.Synced && n.Node.State == part.DatabaseSynced && n.Error == ""
		if n.Node.Epoch >= s.Epoch {
			s.Writer, s.Epoch = n.Node.Writer, n.Node.Epoch
		}
		if n.quorum || s.Choices == nil {
			s.Choices = n.Node.Choices
		}
	}
	for _, n := range nodes {
		if n.Node != nil && n.Node.State == part.DatabaseSynced {
			s.Choices = nil
		}
	}
	s.Synced = s.Synced && s.Writer != ""
	return s
}

func (s dbStatus) print(w io.Writer, colour bool) error {
	t := &table{colour: colour, right: []bool{false, false, false, true, true, true, true}}
	t.head("SERVER", "NODE", "ROLE", "POSITION", "BEHIND", "QUEUE", "FREE", "WHY")
	for _, n := range s.Nodes {
		t.row(s.cells(n)...)
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	if notes := s.notes(); len(notes) > 0 {
		_, err := fmt.Fprintf(w, "\n%s\n", strings.Join(notes, "\n"))
		return err
	}
	return nil
}

func (s dbStatus) cells(n dbNode) []cell {
	if n.Node == nil {
		return []cell{{text: n.Server}, {text: "unknown", colour: red}, {}, {}, {}, {}, {}, {text: n.Error}}
	}
	d := n.Node
	state, role := cell{text: cmp.Or(d.State, "unknown"), colour: red}, ""
	switch d.State {
	case part.DatabaseSynced:
		state.colour = green
	case part.DatabaseJoining:
		state.colour = yellow
	}
	if n.Server == s.Writer {
		role = "writer"
	}
	position, behind := "-", "-"
	if d.Seqno >= 0 && d.UUID != "" {
		position, behind = strconv.FormatInt(d.Seqno, 10), strconv.FormatInt(s.highest(d.UUID)-d.Seqno, 10)
	}
	why := d.Problem
	if c := d.Copy; c != nil && c.Total > 0 {
		why = fmt.Sprintf("receiving a full copy: %s of about %s, %d %%", size(c.Bytes), size(c.Total), c.Percent)
	}
	queue, free := strconv.FormatInt(d.Queue, 10), size(int64(d.Free))
	return []cell{{text: n.Server}, state, {text: role}, {text: position}, {text: behind}, {text: queue}, {text: free}, {text: why}}
}

// highest is the highest position of a history that is known of.
func (s dbStatus) highest(uuid string) int64 {
	highest := int64(0)
	for _, n := range s.Nodes {
		if n.Node != nil && n.Node.UUID == uuid {
			highest = max(highest, n.Node.Seqno)
		}
	}
	return highest
}

// notes say what holds of the whole, and what can be done.
func (s dbStatus) notes() []string {
	var notes []string
	switch {
	case s.Writer == "":
		notes = append(notes, "no server takes the writes yet")
	case s.Synced:
		notes = append(notes, fmt.Sprintf("%s takes the writes (epoch %d); all nodes are synced", s.Writer, s.Epoch))
	}
	if !s.Quorum {
		notes = append(notes, "the cluster has no quorum until two servers are back; only if the others are off for good, start the database without them")
	}
	if len(s.Choices) > 0 {
		notes = append(notes, "no node is synced. What it would lose to have one start now, with `trivet db force-bootstrap SERVER`:")
	}
	for _, c := range s.Choices {
		notes = append(notes, fmt.Sprintf("  %s  at %d: %s", c.Server, c.Seqno, losses(c)))
	}
	return notes
}

func losses(c part.DatabaseChoice) string {
	if len(c.Loses) == 0 {
		return "nothing that is known of"
	}
	return strings.Join(c.Loses, "; ")
}

// size is a number of bytes in the unit that fits.
func size(n int64) string {
	const kib = 1 << 10
	switch {
	case n == 0:
		return "-"
	case n < kib*kib:
		return fmt.Sprintf("%d KiB", (n+kib-1)/kib)
	case n < kib*kib*kib:
		return fmt.Sprintf("%d MiB", n/kib/kib)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/kib/kib/kib)
}
