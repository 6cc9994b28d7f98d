package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"trivet/internal/process"
)

// Listener says where a worker listens. Node opens it and keeps it, so that
// connections and packets wait in the kernel's queue while the worker is restarted.
type Listener struct {
	Name    string // by which the worker asks for it
	Network string // tcp, unix, or udp for a packet socket
	Address string // host:port, or a socket's path
	Group   string // unix only: group that may connect, mode 0660; empty: only the worker's user
}

// open binds l and returns the listening descriptor.
func (l Listener) open(ctx context.Context, owner string) (*os.File, error) {
	if l.Network == "unix" {
		if err := os.Remove(l.Address); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("replace socket %s: %w", l.Address, err)
		}
	}
	var lc net.ListenConfig
	if l.Network == "udp" {
		return l.openPacket(ctx, &lc)
	}
	ln, err := lc.Listen(ctx, l.Network, l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", l.Name, err)
	}
	defer func() { _ = ln.Close() }()
	switch ln := ln.(type) {
	case *net.TCPListener:
		return ln.File()
	case *net.UnixListener:
		ln.SetUnlinkOnClose(false)
		if err := own(l.Address, owner, l.Group); err != nil {
			return nil, err
		}
		return ln.File()
	default:
		return nil, fmt.Errorf("listen for %s: network %s is not known", l.Name, l.Network)
	}
}

func (l Listener) openPacket(ctx context.Context, lc *net.ListenConfig) (*os.File, error) {
	c, err := lc.ListenPacket(ctx, l.Network, l.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", l.Name, err)
	}
	defer func() { _ = c.Close() }()
	u, ok := c.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("listen for %s: %T is no packet socket", l.Name, c)
	}
	f, err := u.File()
	if err == nil {
		widen(u)
	}
	return f, err
}

// packetBuffer is how many bytes of packets may wait, as quic-go asks for; the kernel takes memory for those that do.
const packetBuffer = 7 << 20

// widen lets more packets wait than the kernel's limit for users (socket(7),
// SO_RCVBUFFORCE), which the worker could not. Where that is not permitted fewer may.
func widen(u *net.UDPConn) {
	raw, err := u.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetBuffer)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, packetBuffer)
	})
}

// socket is a listening socket that node keeps but does not serve: a bare
// descriptor, for Go's poller would wake node at every connection to an os.File.
type socket struct {
	name string
	fd   int
}

// keep turns f into a socket, and closes f. It leaves the socket's mode alone,
// which a running worker shares (os.File.Fd would make it blocking).
func keep(f process.File) (socket, error) {
	defer func() { _ = f.File.Close() }()
	c, err := f.File.SyscallConn()
	if err != nil {
		return socket{}, err
	}
	s := socket{name: f.Name}
	if e := c.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }); e != nil {
		err = e
	}
	return s, err
}

// lend returns s as a file to start a process with; the caller closes it.
func (s socket) lend() (process.File, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return process.File{}, fmt.Errorf("lend listener %s: %w", s.name, err)
	}
	return process.File{Name: s.name, File: os.NewFile(uintptr(fd), s.name)}, nil
}

func (s socket) close() { _ = unix.Close(s.fd) }

// own gives the socket at path to a user, and to a group if one is named.
func own(path, owner, group string) error {
	cred, err := process.Credential(owner)
	if err != nil {
		return fmt.Errorf("give socket %s to its user: %w", path, err)
	}
	gid, mode := int(cred.Gid), os.FileMode(0o600)
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Errorf("give socket %s to its group: %w", path, err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return fmt.Errorf("give socket %s to its group: %w", path, err)
		}
		mode = 0o660
	}
	if err := os.Chown(path, int(cred.Uid), gid); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// control is the path of the socket on which node awaits the worker of that name.
func control(dir, name string) string { return filepath.Join(dir, name+".sock") }
