package sst

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// donate sends a copy, or only the position, to the joiner at o.address.
func donate(ctx context.Context, o options, source *mtls.Source, stdout, stderr io.Writer) error {
	d := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 5 * time.Second},
		Config:    mtls.Client(source, "", part.Database),
	}
	c, err := d.DialContext(ctx, "tcp", hostPort(o.address))
	if err != nil {
		return fmt.Errorf("connect to joiner: %w", err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	f := frames{c}
	h := header{Version: version, Full: !o.bypass, GTID: o.gtid, Domain: o.domain}
	if h.Full {
		h.Size = sizeOf(o.dir)
	}
	if err := f.header(h); err != nil {
		return fmt.Errorf("send header: %w", err)
	}
	if o.bypass {
		_, _ = fmt.Fprintln(stdout, "continue") // mariadbd may commit again
	} else if err := backup(ctx, o, f, stderr); err != nil {
		return err
	}
	if err := f.end(); err != nil {
		return fmt.Errorf("send end mark: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "done %s\n", o.gtid)
	return err
}

// backup streams the data folder's content to w without stopping the server.
func backup(ctx context.Context, o options, w io.Writer, stderr io.Writer) error {
	tmp, err := os.MkdirTemp("", "trivet-sst-")
	if err != nil {
		return fmt.Errorf("make temporary folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	cmd := exec.CommandContext(ctx, "mariadb-backup", "--defaults-file="+o.defaults, "--backup",
		"--user=mysql", "--socket="+o.socket, "--datadir="+o.dir, "--galera-info", "--stream=mbstream",
		"--target-dir="+tmp, "--tmpdir="+tmp, "--databases-exclude=lost+found", "--log-copy-interval=50")
	cmd.Stdout = w
	return run(cmd, "back up", stderr)
}

// run runs cmd; the end of what it said goes to stderr only if it fails.
func run(cmd *exec.Cmd, what string, stderr io.Writer) error {
	said := &tail{}
	cmd.Stderr = said
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		_, _ = stderr.Write(said.text)
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// tail keeps the last few kilobytes written to it.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	const limit = 8 << 10
	t.text = append(t.text, p...)
	if over := len(t.text) - limit; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(p), nil
}
