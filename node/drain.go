package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"trivet/cluster"
	"trivet/internal/part"
)

// Drains is which servers get no new requests.
type Drains struct {
	Drained []string `json:"drained"` // names, in the order of the alphabet
	Changed bool     `json:"changed"` // by the question that this answers
}

// swapTries is how often a change is tried anew after another node was faster.
const swapTries = 5

// handleDrain drains or undrains the server that the path names.
func (n *Node) handleDrain(drained bool) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		return n.drain(r.Context(), r.PathValue("server"), drained)
	}
}

// drain agrees that server gets no new requests, or that it gets them again.
func (n *Node) drain(ctx context.Context, server string, drained bool) (d Drains, err error) {
	what := "undrain " + server
	if drained {
		what = "drain " + server
	}
	for range swapTries {
		if d, err = n.drainOnce(ctx, server, drained); !errors.Is(err, cluster.ErrConflict) {
			break
		}
	}
	if err != nil {
		return d, fmt.Errorf("%s: %w", what, err)
	}
	if d.Changed {
		n.log.Info(what)
	}
	return d, nil
}

func (n *Node) drainOnce(ctx context.Context, server string, drained bool) (Drains, error) {
	v, err := n.cluster.Get(ctx, keyDrained)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return Drains{}, err
	}
	was := []string{}
	if err == nil {
		if err := json.Unmarshal(v.Data, &was); err != nil {
			return Drains{}, err
		}
	}
	now, err := changeDrained(was, n.state().Members, server, drained)
	if err != nil || slices.Equal(was, now) {
		return Drains{Drained: was}, err
	}
	data, err := json.Marshal(now)
	if err != nil {
		return Drains{}, err
	}
	if _, err = n.cluster.Swap(ctx, keyDrained, v.Revision, data); err != nil {
		return Drains{}, err
	}
	return Drains{Drained: now, Changed: true}, nil
}

// changeDrained returns the names in was with server among them or not. It
// refuses to drain the last server that answers visitors; of members it takes
// all but whether they are drained, which was knows better.
func changeDrained(was []string, members []part.Member, server string, drained bool) ([]string, error) {
	if !slices.ContainsFunc(members, func(m part.Member) bool { return m.Name == server }) {
		return nil, fmt.Errorf("the site has no server %q", server)
	}
	now := slices.DeleteFunc(slices.Clone(was), func(s string) bool { return s == server })
	if !drained {
		return now, nil
	}
	var why []string
	for _, m := range members {
		m.Drained = slices.Contains(now, m.Name)
		if word := idle(m); m.Name != server && word != "" {
			why = append(why, m.Name+" "+word)
		}
	}
	if len(why) == len(members)-1 {
		return nil, fmt.Errorf("no other server would be left to answer visitors: %s", strings.Join(why, ", "))
	}
	now = append(now, server)
	slices.Sort(now)
	return now, nil
}

// idle is why m answers no visitors; empty if it does.
func idle(m part.Member) string {
	switch {
	case m.Drained:
		return "is drained"
	case !m.Alive:
		return "is not there"
	case m.Problems[part.Web] != "":
		return "has a problem with web (" + m.Problems[part.Web] + ")"
	case m.Problems[part.App] != "":
		return "has a problem with app (" + m.Problems[part.App] + ")"
	}
	return ""
}

// another reports whether a server other than the one named can take over what visitors connect to.
func another(members []part.Member, than string) bool {
	return slices.ContainsFunc(members, func(m part.Member) bool {
		return m.Name != than && m.Alive && !m.Drained && m.Problems[part.Balancer] == ""
	})
}

// withDrained marks in bare who is drained in full, unless nobody else is
// alive: a drained server that answers is better than none.
func withDrained(bare, full []part.Member) []part.Member {
	if !slices.ContainsFunc(full, func(m part.Member) bool { return m.Alive && !m.Drained }) {
		return bare
	}
	for i, m := range full {
		bare[i].Drained = m.Drained
	}
	return bare
}
