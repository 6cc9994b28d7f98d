package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// program is a run of one of MariaDB's programs: in a process group of its own
// that ends with ctx, and with us.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	if cmd.Err != nil { // not in our own PATH, which may be empty
		for _, dir := range searchDirs {
			if path, err := exec.LookPath(dir + "/" + name); err == nil {
				cmd.Path, cmd.Err = path, nil
				break
			}
		}
	}
	cmd.Env, cmd.Dir = []string{"PATH=" + strings.Join(searchDirs, ":")}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

var searchDirs = []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// said keeps the end of what a program wrote to its standard error.
type said struct{ text []byte }

func (s *said) Write(p []byte) (int, error) {
	const limit = 8 << 10
	s.text = append(s.text, p...)
	if over := len(s.text) - limit; over > 0 {
		s.text = append(s.text[:0], s.text[over:]...)
	}
	return len(p), nil
}

// last is the first line that is marked as an error, for the later ones follow
// from it, or else the last that says something.
func (s *said) last() string {
	word := "it said nothing"
	for line := range strings.Lines(string(s.text)) {
		if _, text, ok := strings.Cut(line, "[ERROR] "); ok {
			return strings.TrimSpace(text)
		}
		if line = strings.TrimSpace(line); line != "" {
			word = line
		}
	}
	return word
}

// run runs cmd to its end; its last word is in the error.
func run(cmd *exec.Cmd, what string) error {
	s := &said{}
	if cmd.Stderr == nil {
		cmd.Stderr = s
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", what, err, s.last())
	}
	return nil
}

// client is MariaDB's own, on a unix socket, as the user that we are.
func client(ctx context.Context, socket string, args ...string) *exec.Cmd {
	return program(ctx, "mariadb", append([]string{
		"--no-defaults", "--user=mysql", "--socket=" + socket, "--default-character-set=utf8mb4",
		"--batch", "--skip-column-names", "--binary-mode", "--max-allowed-packet=1G", "--connect-timeout=5",
	}, args...)...)
}

// query runs SQL and returns its rows; a field holds no tab or line end.
func query(ctx context.Context, socket, sql string) ([][]string, error) {
	cmd := client(ctx, socket)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(sql), &out
	if err := run(cmd, "ask the database"); err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(out.String()) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return rows, nil
}

// value runs SQL that gives one value.
func value(ctx context.Context, socket, sql string) (string, error) {
	rows, err := query(ctx, socket, sql)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return "", errors.New("ask the database: no answer to " + sql)
	}
	return rows[0][0], nil
}

// quote writes s as an identifier or a string of SQL.
func quote(s string, mark byte) string {
	m := string(mark)
	if mark == '\'' {
		s = strings.ReplaceAll(s, `\`, `\\`)
	}
	return m + strings.ReplaceAll(s, m, m+m) + m
}

// pipe connects from's output with to's input and runs both to their ends. If
// either fails so does all; what from could not finish is no success of to's.
func pipe(from, to *exec.Cmd, whatFrom, whatTo string) error {
	r, w := io.Pipe()
	from.Stdout, to.Stdin = w, r
	failed := make(chan error, 1)
	go func() {
		err := run(from, whatFrom)
		_ = w.CloseWithError(err) // nil is the end of the input
		failed <- err
	}()
	err := run(to, whatTo)
	_ = r.CloseWithError(errors.New("the reader ended"))
	cause := <-failed
	if err != nil && !errors.Is(err, cause) {
		return err // that from could not go on follows from it
	}
	return cause
}
