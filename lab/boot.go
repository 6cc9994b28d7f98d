package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/binary"
	"trivet/internal/netns"
	"trivet/internal/part"
	"trivet/internal/process"
)

// powerOn starts a server that is off; on error nothing of it is left running.
func (l *Lab) powerOn(ctx context.Context, server, executable string) error {
	err := l.sweep(server)
	if err == nil {
		err = l.prepare(ctx, server, executable)
	}
	if err == nil {
		err = l.boot(ctx, server, executable)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", server, errors.Join(err, l.sweep(server)))
	}
	return nil
}

// prepare makes all that a server needs before its first process.
func (l *Lab) prepare(ctx context.Context, server, executable string) error {
	if err := os.RemoveAll(l.Dir(server, Run)); err != nil {
		return fmt.Errorf("empty run folder: %w", err)
	}
	if err := l.folders(server); err != nil {
		return err
	}
	if err := l.ensureBinary(server, executable); err != nil {
		return err
	}
	if err := EnsureUsers(ctx); err != nil {
		return err
	}
	if err := l.sharedBridge(ctx); err != nil {
		return err
	}
	return l.wire(server)
}

// sharedBridge is ensureBridge for servers that start at the same time.
func (l *Lab) sharedBridge(ctx context.Context) error {
	unlock, err := lock(ctx, l.dir())
	if err != nil {
		return err
	}
	defer unlock()
	return l.ensureBridge()
}

// folders makes the server's folders, and the places on this machine where the
// server, and it alone, sees them.
func (l *Lab) folders(server string) error {
	for _, dir := range []string{l.Dir(server, Lib), l.Dir(server, Run), l.Dir(server, Log)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		// Users of the parts pass through; umask must not shut them out.
		if err := os.Chmod(dir, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	for _, m := range seen {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	return nil
}

// boot starts init, puts it where it can be frozen, lets it go on and waits until it says that all is in place.
func (l *Lab) boot(ctx context.Context, server, executable string) error {
	ours, theirs, err := socketpair()
	if err != nil {
		return fmt.Errorf("make socket for init: %w", err)
	}
	defer func() { _ = ours.Close() }()
	init, err := l.startInit(server, executable, theirs)
	_ = theirs.Close()
	if err != nil {
		return err
	}
	f, err := createFreezer(l.Namespace(server), func() (int, error) { return l.init(server) })
	if err != nil {
		return err
	}
	if err := f.join(init.PID()); err != nil {
		return fmt.Errorf("put init into its control group: %w", err)
	}
	return l.await(ctx, server, ours)
}

func (l *Lab) startInit(server, executable string, order *os.File) (*process.Process, error) {
	program := l.Program
	if len(program) == 0 {
		executable = filepath.Join(l.binaries(server), binary.InForce)
		program = []string{filepath.Join(part.LibDir, binaryDir, binary.InForce), "node"}
	}
	var init *process.Process
	err := netns.Do(l.Namespace(server), func() (err error) {
		init, err = process.Start(l.dir(server), process.Spec{
			Name:       initRecord,
			Path:       executable,
			Args:       append([]string{"lab-init", l.dir(server), server}, program...),
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"},
			Files:      []process.File{{Name: "order", File: order}},
			Log:        filepath.Join(l.Dir(server, Log), "init.log"),
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
		})
		return err
	})
	return init, err
}

// await gives init the order to go on and waits for its word; see Init.
func (l *Lab) await(ctx context.Context, server string, init *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = init.SetDeadline(time.Now()) })()
	if _, err := init.WriteString(goOn); err != nil {
		return fmt.Errorf("tell init to go on: %w", err)
	}
	word, err := io.ReadAll(init)
	switch said := strings.TrimSpace(string(word)); {
	case said == ready:
		return nil
	case said != "":
		return errors.New(said)
	case ctx.Err() != nil:
		return fmt.Errorf("wait for init: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("wait for init: %w", err)
	}
	return fmt.Errorf("init ended without a word; see %s", filepath.Join(l.Dir(server, Log), "init.log"))
}

func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	// Deadlines need descriptors that do not block.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "init"), os.NewFile(uintptr(fds[1]), "order"), nil
}
