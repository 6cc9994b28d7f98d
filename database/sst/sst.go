// Package sst is the full copy by which a database node joins: the program
// that mariadbd runs at both ends of a state snapshot transfer, as
// wsrep_sst_trivet (wsrep_sst_method=trivet).
//
// mariadbd starts it with role "joiner" on the server that needs the data and
// with role "donor" on the one that gives it. The joiner listens, with mutual
// TLS by the database's identity; the donor connects and sends what
// mariadb-backup reads, or, when the joiner has data and lacks only the latest
// changes (bypass), just the position. The protocol with mariadbd is that of
// the packaged wsrep_sst_mariabackup: lines on standard output.
//
// A copy that ends before its end mark is refused: a broken connection or a
// failed backup never passes for data. While the joiner's folder holds half of
// a copy, the file sst_in_progress lies in it.
package sst

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

// ProgressFile lies in a data folder that holds half of a copy.
const ProgressFile = "sst_in_progress"

// The TLS files' names in the folder that --tls names.
const (
	CAFile   = "ca.pem"
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

// options are mariadbd's arguments, those that matter here.
type options struct {
	role, address, dir, defaults, socket string
	gtid, domain                         string
	binlog                               string
	parent                               int
	bypass                               bool
	tls                                  string // folder of the identity's files; ours, not mariadbd's
}

// SST runs one end of a transfer with the arguments that mariadbd gave,
// preceded by --tls FOLDER. Only lines for mariadbd are written to stdout. It
// ends, with everything that it started, when ctx does or when mariadbd
// (--parent) has ended.
func SST(ctx context.Context, args []string, _ io.Reader, stdout, stderr io.Writer) error {
	o, err := parse(args)
	if err != nil {
		return fmt.Errorf("transfer state: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := follow(o.parent, cancel); err != nil {
		return fmt.Errorf("transfer state: watch mariadbd: %w", err)
	}
	source, err := identity(o.tls)
	if err != nil {
		return fmt.Errorf("transfer state: %w", err)
	}
	switch o.role {
	case "joiner":
		err = join(ctx, o, source, stdout, stderr)
	case "donor":
		err = donate(ctx, o, source, stdout, stderr)
	default:
		err = fmt.Errorf("unknown role %q", o.role)
	}
	if err != nil {
		return fmt.Errorf("transfer state as %s: %w", o.role, err)
	}
	return nil
}

// parse reads --name value pairs up to --mysqld-args and passes over those it does not know.
func parse(args []string) (options, error) {
	var o options
	text := map[string]*string{
		"--role": &o.role, "--address": &o.address, "--datadir": &o.dir, "--defaults-file": &o.defaults,
		"--socket": &o.socket, "--gtid": &o.gtid, "--gtid-domain-id": &o.domain, "--binlog": &o.binlog, "--tls": &o.tls,
	}
	for i := 0; i < len(args) && args[i] != "--mysqld-args"; i++ {
		if args[i] == "--bypass" {
			o.bypass = true
			continue
		}
		if i++; i == len(args) {
			return o, fmt.Errorf("%s: its value is missing", args[i-1])
		}
		if to := text[args[i-1]]; to != nil {
			*to = args[i]
		}
		if args[i-1] == "--parent" {
			if _, err := fmt.Sscan(args[i], &o.parent); err != nil {
				return o, fmt.Errorf("--parent %q is no process id", args[i])
			}
		}
	}
	o.dir = filepath.Clean(o.dir)
	if !filepath.IsAbs(o.dir) || o.dir == "/" || o.address == "" || o.tls == "" {
		return o, errors.New("--datadir, --address or --tls is missing")
	}
	return o, nil
}

// follow cancels when the process pid ends; 0: none to follow.
func follow(pid int, cancel context.CancelCauseFunc) error {
	if pid == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	go func() {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
				cancel(errors.New("mariadbd has ended"))
				return
			}
		}
	}()
	return nil
}

func identity(dir string) (*mtls.Source, error) {
	var files [3][]byte
	for i, name := range []string{CAFile, CertFile, KeyFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("read identity: %w", err)
		}
		files[i] = data
	}
	s := new(mtls.Source)
	return s, s.Set(part.KeyPair{Certificate: files[1], Key: files[2]}, files[0])
}

// hostPort takes the address of mariadbd's form host[:port][/path…] apart.
func hostPort(address string) string {
	address, _, _ = strings.Cut(address, "/")
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), fmt.Sprint(part.PortSST))
}
