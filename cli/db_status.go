package cli

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"

	"trivet/internal/part"
)

var dbStatusCommand = command{
	name: "db status", summary: "show the database's nodes and its writer; exit 1 if not all are synced",
	example: "trivet db status\ntrivet db status --json | jq .writer",
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
			s := databaseOf(overview(ctx, l))
			if *asJSON {
				err = printJSON(e.out, s)
			} else {
				err = s.print(e.out, terminal(e.out))
			}
			if err == nil && !s.Synced {
				return errSaid
			}
			return err
		}
	},
}

// dbStatus is the database on all servers at one moment.
type dbStatus struct {
	Synced bool     `json:"synced"` // all nodes are, and one takes the writes
	Writer string   `json:"writer"`
	Nodes  []dbNode `json:"nodes"`
}

// dbNode is one server's node of it.
type dbNode struct {
	Server  string `json:"server"`
	State   string `json:"state,omitempty"`
	Problem string `json:"problem,omitempty"`
}

// databaseOf takes from what all servers say what is about the database.
func databaseOf(f fleet) dbStatus {
	s := dbStatus{Writer: f.Writer, Synced: f.Writer != ""}
	for _, srv := range f.Servers {
		n := dbNode{Server: srv.Server, Problem: srv.Error}
		if m, ok := (part.State{Members: srv.status.Members}).Member(srv.Server); ok {
			n.State = m.Database.State
		}
		for _, p := range srv.Parts {
			if p.Name == part.Database {
				n.Problem = p.Problem
			}
		}
		s.Synced = s.Synced && n.State == part.DatabaseSynced
		s.Nodes = append(s.Nodes, n)
	}
	return s
}

func (s dbStatus) print(w io.Writer, colour bool) error {
	t := &table{colour: colour}
	t.head("SERVER", "NODE", "ROLE", "WHY")
	for _, n := range s.Nodes {
		state, role := cell{text: cmp.Or(n.State, "unknown"), colour: red}, ""
		if n.State == part.DatabaseSynced {
			state.colour = green
		}
		if n.Server == s.Writer {
			role = "writer"
		}
		t.row(cell{text: n.Server}, state, cell{text: role}, cell{text: n.Problem})
	}
	if err := t.write(w, ""); err != nil {
		return err
	}
	if s.Writer == "" {
		_, err := fmt.Fprintln(w, "\nno server takes the writes")
		return err
	}
	return nil
}
