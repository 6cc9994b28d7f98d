package sst

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

const (
	donorTimeout = 5 * time.Minute // until a donor has connected
	idleTimeout  = time.Minute     // between two reads
	inbox        = ".sst"          // folder that a copy is unpacked in, within the data folder
)

// join receives what the donor sends and prints the position for mariadbd.
func join(ctx context.Context, o options, source *mtls.Source, stdout, stderr io.Writer) error {
	address := hostPort(o.address)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for donor: %w", err)
	}
	defer func() { _ = l.Close() }()
	if _, err := fmt.Fprintf(stdout, "ready %s/trivet//1\n", address); err != nil {
		return err
	}
	c, err := accept(ctx, l, mtls.Server(source, part.Database), stderr)
	if err != nil {
		return fmt.Errorf("wait for donor: %w", err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	u := &unframed{r: patient{c}}
	h, err := u.header()
	if err != nil {
		return err
	}
	position := h.GTID + " " + h.Domain
	if h.Full {
		if position, err = receive(ctx, o, u, h.Size, stderr); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(stdout, position)
	return err
}

// accept returns the first connection whose peer is a database of this site.
func accept(ctx context.Context, l net.Listener, config *tls.Config, stderr io.Writer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, donorTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		raw, err := l.Accept()
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		c := tls.Server(raw, config)
		shake, done := context.WithTimeout(ctx, 5*time.Second)
		err = c.HandshakeContext(shake)
		done()
		if err == nil {
			return c, nil
		}
		_ = raw.Close()
		_, _ = fmt.Fprintf(stderr, "trivet sst: refused %s: %v\n", raw.RemoteAddr(), err)
	}
}

// patient is a connection whose every read has a deadline.
type patient struct{ net.Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(idleTimeout)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

// receive replaces the data folder's content by the copy and returns its position.
func receive(ctx context.Context, o options, u *unframed, size int64, stderr io.Writer) (string, error) {
	in := filepath.Join(o.dir, inbox)
	p := &progress{r: u, path: filepath.Join(o.dir, ProgressFile), Progress: Progress{Total: size}}
	if err := p.write(); err != nil {
		return "", err
	}
	if err := clear(o.dir); err != nil {
		return "", fmt.Errorf("clear data folder: %w", err)
	}
	if err := os.Mkdir(in, 0o700); err != nil {
		return "", err
	}
	unpack := exec.CommandContext(ctx, "mbstream", "-x", "-C", in)
	unpack.Stdin = p
	if err := run(unpack, "unpack", stderr); err != nil {
		return "", err
	}
	if !u.done {
		return "", errors.New("unpack: the copy broke off")
	}
	prepare := exec.CommandContext(ctx, "mariadb-backup", "--prepare", "--target-dir="+in)
	if err := run(prepare, "prepare", stderr); err != nil {
		return "", err
	}
	position, err := copied(in)
	if err != nil {
		return "", err
	}
	if err := move(in, o.dir, o.binlog); err != nil {
		return "", fmt.Errorf("move into place: %w", err)
	}
	if err := syncAll(o.dir); err != nil {
		return "", fmt.Errorf("write copy to the disk: %w", err)
	}
	return position, os.Remove(filepath.Join(o.dir, ProgressFile))
}

// syncAll writes all that was changed in dir's file system to the disk (syncfs(2)):
// once the mark is gone, half a copy would pass for a whole one after a power cut.
func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.Syncfs(int(f.Fd()))
}

// copied reads the position that mariadb-backup wrote into the copy.
func copied(dir string) (string, error) {
	for _, name := range []string{"donor_galera_info", "xtrabackup_galera_info", "mariadb_backup_galera_info"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		line, _, _ := bytes.Cut(data, []byte("\n"))
		if uuid, _, ok := strings.Cut(string(line), ":"); ok && len(uuid) == 36 {
			return string(line), nil
		}
	}
	return "", errors.New("read position: the copy holds none")
}

// clear removes what a folder holds, but what mariadbd has open or we need.
func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Name() {
		case "galera.cache", "grastate.dat", "gvwstate.dat", ProgressFile:
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// move renames the copy's files into dir. The donor's binary log is left out:
// the joiner begins one of its own at the copy's position (MDEV-38147).
func move(in, dir, binlog string) error {
	entries, err := os.ReadDir(in)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if binlog != "" && strings.HasPrefix(name, filepath.Base(binlog)+".") ||
			strings.HasPrefix(name, "xtrabackup_") || strings.HasPrefix(name, "mariadb_backup_") ||
			name == "donor_galera_info" || name == "backup-my.cnf" {
			continue
		}
		if err := os.Rename(filepath.Join(in, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return os.RemoveAll(in)
}
