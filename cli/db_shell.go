package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"trivet/internal/part"
	"trivet/lab"
	"trivet/node"
)

var dbShellCommand = command{
	name: "db shell", args: "[-- ARGUMENTS]", summary: "open MariaDB's prompt, on the writer unless a server is named; that is kept in the log",
	example: "trivet db shell --read-only\ntrivet db shell -- -e 'SHOW TABLES'     # what follows -- is for the program mariadb\ntrivet db shell --server s2 --read-only",
	flags: func(fs *flag.FlagSet) func(context.Context, *env, []string) error {
		name := labFlag(fs)
		server := fs.String("server", "", "`name` of the server whose database it is")
		readOnly := fs.Bool("read-only", false, "sign in as a user that can change nothing")
		return func(ctx context.Context, e *env, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			return dbShell{lab: l, readOnly: *readOnly, args: args}.open(ctx, e, *server)
		}
	},
}

// dbShell is a person's connection to one server's database.
type dbShell struct {
	lab      *lab.Lab
	readOnly bool
	args     []string
}

// open runs the program mariadb on the server's socket until it ends.
func (s dbShell) open(ctx context.Context, e *env, server string) error {
	server, err := s.choose(ctx, server)
	if err != nil {
		return err
	}
	program, err := exec.LookPath("mariadb")
	if err != nil {
		return hinted{fmt.Errorf("open database shell: %w", err), []string{"the package mariadb-client has it"}}
	}
	told := node.Shell{By: whoAsks(), ReadOnly: s.readOnly, Args: s.args}
	c := client(s.lab, server)
	account, err := c.Shell(ctx, told)
	if err != nil {
		return err
	}
	begun := time.Now()
	err = s.command(program, server, account, e).Run()
	told.Lasted = max(time.Since(begun), 1)
	if _, failed := c.Shell(context.WithoutCancel(ctx), told); failed != nil {
		return failed
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return errSaid // by the program itself
	}
	return err
}

// choose is the server that is named, or the one that takes the writes.
func (s dbShell) choose(ctx context.Context, server string) (string, error) {
	if server != "" {
		return oneServer(s.lab, []string{server})
	}
	if server = overview(ctx, s.lab).Writer; server == "" {
		return "", hinted{errors.New("no server takes the writes now"), []string{"--server names one; `trivet db status` shows them"}}
	}
	return server, nil
}

// command is the program as it is run: on the terminal, which also ends it.
func (s dbShell) command(program, server string, a node.Account, e *env) *exec.Cmd {
	prompt := server + " [\\d]> "
	args := []string{"--no-defaults", "--socket=" + databaseSocket(s.lab, server), "--user=" + a.User, "--default-character-set=utf8mb4"}
	if s.readOnly {
		prompt = server + " read-only [\\d]> "
		args = append(args, "--init-command=SET SESSION TRANSACTION READ ONLY")
	}
	args = append(args, "--prompt="+prompt, "--database="+a.Database)
	cmd := exec.Command(program, append(args, s.args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.in, e.out, e.err
	cmd.Env = append(os.Environ(), "MYSQL_PWD="+a.Password)
	return cmd
}

// databaseSocket is mariadbd's socket on a server, as it is seen from here.
func databaseSocket(l *lab.Lab, server string) string {
	return filepath.Join(l.Dir(server, lab.Run), strings.TrimPrefix(part.SQLSocket, part.RunDir))
}

// whoAsks is the person behind this process.
func whoAsks() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}
