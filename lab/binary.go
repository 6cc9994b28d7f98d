package lab

import (
	"context"
	"fmt"
	"syscall"

	"trivet/internal/binary"
)

// binaryDir is the folder inside a server's Lib that holds its binaries.
const binaryDir = "bin"

func (l *Lab) binaries(server string) string { return l.dir(server, Lib, binaryDir) }

// Install makes executable the server's own binary, and returns its build and
// the one before; empty: there was none. What runs goes on as it is: Restart,
// or the next start of the server, brings the new one into use. It is there
// whole or not at all, and the one before is kept, for Use.
func (l *Lab) Install(ctx context.Context, server, executable string) (build, before string, err error) {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return "", "", err
	}
	defer unlock()
	return l.install(server, executable)
}

func (l *Lab) install(server, executable string) (build, before string, err error) {
	dir := l.binaries(server)
	if before, err = binary.Current(dir); err != nil {
		return "", "", fmt.Errorf("install on %s: %w", server, err)
	}
	var peers []string
	for _, s := range l.Servers {
		peers = append(peers, l.binaries(s))
	}
	if build, err = binary.Add(dir, executable, peers...); err != nil {
		return "", before, fmt.Errorf("install on %s: %w", server, err)
	}
	if err := binary.Use(dir, build); err != nil {
		return "", before, fmt.Errorf("install on %s: %w", server, err)
	}
	if before != "" {
		err = binary.Prune(dir, before)
	}
	return build, before, err
}

// Use makes a build that was installed before the server's binary again.
func (l *Lab) Use(ctx context.Context, server, build string) error {
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	return binary.Use(l.binaries(server), build)
}

// ensureBinary gives a server that has no binary the executable.
func (l *Lab) ensureBinary(server, executable string) error {
	if len(l.Program) > 0 {
		return nil
	}
	if b, err := binary.Current(l.binaries(server)); err != nil || b != "" {
		return err
	}
	_, _, err := l.install(server, executable)
	return err
}

// Restart has the server's node end, and started again from the server's
// binary; all else that runs goes on. It returns at once. See Init.
func (l *Lab) Restart(server string) error {
	init, err := l.PID(server)
	if err != nil {
		return fmt.Errorf("restart node of %s: %w", server, err)
	}
	if err := syscall.Kill(init, syscall.SIGHUP); err != nil {
		return fmt.Errorf("restart node of %s: %w", server, err)
	}
	return nil
}

// lockServer waits until nobody else changes the server.
func (l *Lab) lockServer(ctx context.Context, server string) (unlock func(), err error) {
	if err := l.known(server); err != nil {
		return nil, err
	}
	return lock(ctx, l.dir(server))
}
