package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"trivet/internal/part"
)

// choices are the servers that could start the group alone, and what each would
// lose; none while a node is synced.
func choices(v view) []part.DatabaseChoice {
	if _, other := v.synced(); other || v.serves() {
		return nil
	}
	var cs []part.DatabaseChoice
	for _, h := range v.holdings() {
		if h.UUID != "" {
			cs = append(cs, v.choice(h))
		}
	}
	return cs
}

// choice compares what h holds with what is known of all others.
func (v view) choice(h holding) part.DatabaseChoice {
	c := part.DatabaseChoice{Server: h.name, Seqno: h.Seqno}
	if why := v.doubt(h); why != "" {
		c.Loses = append(c.Loses, "what the group committed since: "+why)
	}
	if n := v.lacking(h.UUID, h.Seqno); n > 0 {
		c.Loses = append(c.Loses, counted(n)+" at least that had been committed")
	}
	for _, m := range v.members {
		if m.Name == h.name {
			continue
		}
		if loses := v.losing(h, m); loses != "" {
			c.Loses, c.Lose = append(c.Loses, loses), append(c.Lose, m.Name)
		}
	}
	return c
}

// losing says what of m's data is given up if h starts; empty if nothing is.
func (v view) losing(h holding, m part.Member) string {
	o := holding{m.Name, m.Database}
	if m.Name == v.self && !v.running {
		o = v.own()
	}
	switch {
	case m.Name != v.self && !m.Alive:
		return fmt.Sprintf("what %s alone may hold: it does not answer", m.Name)
	case m.Database.State == part.DatabaseUnknown, m.Database.State == part.DatabaseDown && o.UUID == "":
		return fmt.Sprintf("what %s alone may hold: it does not know", m.Name)
	case o.UUID != "" && o.UUID != h.UUID:
		return fmt.Sprintf("all that %s holds: another history, up to %d", m.Name, o.Seqno)
	case o.UUID != "" && o.Seqno > h.Seqno:
		return fmt.Sprintf("%s that %s holds", counted(o.Seqno-h.Seqno), m.Name)
	}
	return ""
}

// ErrNoChoice is the error of a start by force that cannot be.
var ErrNoChoice = errors.New("no start by force is possible")

// Choose checks that server can be made to start the group alone, for the loss
// of what the servers in lose hold, and returns what is to be agreed.
func (d *Database) Choose(server string, lose []string) (part.DatabaseForce, error) {
	d.mu.Lock()
	cs := choices(d.seen)
	d.mu.Unlock()
	return chooseAmong(cs, server, lose)
}

func chooseAmong(cs []part.DatabaseChoice, server string, lose []string) (part.DatabaseForce, error) {
	if len(cs) == 0 {
		return part.DatabaseForce{}, fmt.Errorf("%w: a server is synced, or none holds data", ErrNoChoice)
	}
	i := slices.IndexFunc(cs, func(c part.DatabaseChoice) bool { return c.Server == server })
	if i < 0 {
		return part.DatabaseForce{}, fmt.Errorf("%w: %s holds no data that are known of", ErrNoChoice, server)
	}
	for _, name := range cs[i].Lose {
		if !slices.Contains(lose, name) {
			return part.DatabaseForce{}, fmt.Errorf("%w: it would lose %s, and that was not said", ErrNoChoice, name)
		}
	}
	return part.DatabaseForce{Server: server, Lose: cs[i].Lose}, nil
}

// Inspect says how this server's node is. It implements part.Inspector.
func (d *Database) Inspect(context.Context) (any, error) {
	d.mu.Lock()
	v, m, problem, told := d.seen, d.status, d.problem, d.told
	d.mu.Unlock()
	s := part.DatabaseStatus{
		State: m.State, Writer: v.role.Writer, Epoch: v.role.Epoch, UUID: m.UUID, Seqno: m.Seqno,
		Queue: v.health.queue, Group: v.health.names, Threads: int64(v.health.threads), Free: v.disk.free,
		Checked: told, Committed: v.committed(), Choices: choices(v),
	}
	if v.running && v.health.answers {
		s.Seqno = v.health.seqno
	}
	if problem != nil {
		s.Problem = problem.Error()
	}
	if age := time.Since(told); problem == nil && age > frozenAfter {
		s.State, s.Problem = part.DatabaseUnknown, fmt.Sprintf("was last looked at %.0f s ago", age.Seconds())
	}
	if v.copying {
		percent, _ := v.copy.Percent()
		s.Copy = &part.DatabaseCopy{Bytes: v.copy.Bytes, Total: v.copy.Total, Percent: percent}
	}
	return s, nil
}
