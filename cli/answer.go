package cli

import (
	"fmt"
	"io"
	"slices"

	"trivet/lab"
	"trivet/node"
)

// answering are a lab's servers, parted by whether their nodes can answer now.
type answering struct {
	clients []*node.Client // those with their cable in first: they can speak for the cluster
	away    []away
}

// away is a server whose node cannot answer.
type away struct {
	server string
	state  lab.State // lab.Off or lab.Frozen
}

// answerers looks at which servers can answer. One that is cut off can: its
// control socket needs no cable. To ask a frozen one would wait for its thaw.
func answerers(l *lab.Lab) (answering, error) {
	var a answering
	var cut []*node.Client
	for _, server := range l.Servers {
		state, err := l.State(server)
		if err != nil {
			return a, err
		}
		switch state {
		case lab.Running:
			a.clients = append(a.clients, client(l, server))
		case lab.Cut:
			cut = append(cut, client(l, server))
		default:
			a.away = append(a.away, away{server, state})
		}
	}
	a.clients = append(a.clients, cut...)
	return a, nil
}

// some refuses a lab of which no server can answer.
func (a answering) some() error {
	if len(a.clients) > 0 {
		return nil
	}
	return hinted{fmt.Errorf("no server answers: %s", a.words()), []string{"`trivet lab start SERVER` starts one; `trivet up` all"}}
}

func (a answering) words() string {
	text := ""
	for i, s := range a.away {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%s is %s", s.server, s.state)
	}
	return text
}

// tell says of each server that is away what follows from it.
func (a answering) tell(w io.Writer, format string, args ...any) {
	for _, s := range a.away {
		_, _ = fmt.Fprintf(w, "%s is %s: %s\n", s.server, s.state, fmt.Sprintf(format, args...))
	}
}

// only keeps the servers named.
func (a answering) only(servers []string) answering {
	var kept answering
	for _, c := range a.clients {
		if slices.Contains(servers, c.Server) {
			kept.clients = append(kept.clients, c)
		}
	}
	for _, s := range a.away {
		if slices.Contains(servers, s.server) {
			kept.away = append(kept.away, s)
		}
	}
	return kept
}
