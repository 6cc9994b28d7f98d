package cli

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"trivet/internal/part"
	"trivet/lab"
)

var dbForceCommand = command{
	name: "db force-bootstrap", args: "SERVER", summary: "have a server start the database alone, though that may lose data; asks first",
	example: "trivet db force-bootstrap s1\ntrivet db force-bootstrap s1 --yes-lose \"s2 s3\"",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		lose := fs.String("yes-lose", "", "do not ask: give up what these `servers` hold beyond it")
		return func(ctx context.Context, e *env, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			server, err := oneServer(l, args)
			if err != nil {
				return err
			}
			return forceBootstrap(ctx, e, l, server, *lose)
		}
	},
}

// forceBootstrap says what would be lost, asks, and has it agreed.
func forceBootstrap(ctx context.Context, e *env, l *lab.Lab, server, yes string) error {
	s := databaseOf(inspectDatabase(ctx, l))
	c, err := s.choice(server)
	if err != nil {
		return err
	}
	if err := s.consent(e, c, yes); err != nil {
		return err
	}
	for _, n := range s.Nodes {
		if !n.quorum && (s.Quorum || n.Server != server) {
			continue
		}
		err = client(l, n.Server).ForceDatabase(ctx, part.DatabaseForce{Server: server, Lose: c.Lose})
		if err == nil {
			_, err = fmt.Fprintf(e.out, "%s starts the database; `trivet db status --watch` shows how it goes\n", server)
			return err
		}
	}
	return err
}

// choice finds what is known of starting server, or why it cannot be.
func (s dbStatus) choice(server string) (part.DatabaseChoice, error) {
	none := part.DatabaseChoice{}
	for _, n := range s.Nodes {
		if n.Node != nil && n.Node.State == part.DatabaseSynced {
			return none, fmt.Errorf("%s is synced: the database needs no start, and %s joins by itself", n.Server, server)
		}
	}
	i := slices.IndexFunc(s.Choices, func(c part.DatabaseChoice) bool { return c.Server == server })
	if i < 0 {
		return none, hinted{fmt.Errorf("%s cannot start the database: it is not known to hold any data", server), []string{"`trivet db status` shows who does"}}
	}
	return s.Choices[i], nil
}

// consent makes sure that whoever asks for it has read what would be lost.
func (s dbStatus) consent(e *env, c part.DatabaseChoice, yes string) error {
	if yes != "" {
		said := strings.FieldsFunc(yes, func(r rune) bool { return r == ' ' || r == ',' })
		for _, name := range c.Lose {
			if !slices.Contains(said, name) {
				return fmt.Errorf("--yes-lose does not name %s, and this would lose %s", name, losses(c))
			}
		}
		return nil
	}
	sentence := s.sentence(c)
	if _, err := fmt.Fprintf(e.out, "If %s starts the database alone at position %d, this is lost for good:\n  %s\n\nTo go on, type: %s\n> ",
		c.Server, c.Seqno, strings.ReplaceAll(losses(c), "; ", "\n  "), sentence); err != nil {
		return err
	}
	line, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != sentence {
		return errors.New("that is not the sentence; nothing was done")
	}
	return nil
}

// sentence is what has to be typed. Without quorum nobody but the operator
// knows that the others are dead: two databases would go on, each by itself.
func (s dbStatus) sentence(c part.DatabaseChoice) string {
	lose := strings.Join(c.Lose, " ")
	switch {
	case !s.Quorum:
		return fmt.Sprintf("%s are off for good, start from %s", lose, c.Server)
	case lose == "":
		return "start from " + c.Server
	}
	return fmt.Sprintf("start from %s and lose %s", c.Server, lose)
}
