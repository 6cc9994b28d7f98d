package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"strconv"

	"trivet/internal/part"
	"trivet/lab"
	"trivet/node"
)

var signinCommand = command{
	name: "signin", summary: "print a one-time sign-in to the console", example: "trivet signin",
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
			url, s, err := signIn(ctx, l)
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(e.out, map[string]any{"url": url, "expires": s.Expires})
			}
			_, err = fmt.Fprintf(e.out, "%s\n(valid once, until %s)\n", url, s.Expires.Local().Format("15:04:05"))
			return err
		}
	},
}

// signIn asks the first server that answers for a sign-in to its console.
func signIn(ctx context.Context, l *lab.Lab) (string, node.SignIn, error) {
	a, err := answerers(l)
	if err != nil {
		return "", node.SignIn{}, err
	}
	if err := a.some(); err != nil {
		return "", node.SignIn{}, err
	}
	var errs []error
	for _, c := range a.clients {
		s, err := c.SignIn(ctx)
		if err == nil {
			host := net.JoinHostPort(l.Address(c.Server).String(), strconv.Itoa(part.PortConsole))
			return "https://" + host + "/signin?token=" + s.Token, s, nil
		}
		errs = append(errs, err)
	}
	return "", node.SignIn{}, errors.Join(errs...)
}
