package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// databaseDir is where a server sees its database's files.
const databaseDir = "/var/lib/trivet/database"

// disk is where this machine sees the database's files of a server that is off.
func (l *Lab) disk(server string) string { return filepath.Join(l.Dir(server, "lib"), "database") }

// wipe takes the database's files off the disk of a server that is off.
func wipe(_ context.Context, l *Lab, server string) error {
	if err := os.RemoveAll(l.disk(server)); err != nil {
		return fmt.Errorf("wipe the disk of %s: %w", server, err)
	}
	return nil
}

// copyDisk keeps a copy of a server's database as it is now; the server is off meanwhile.
func copyDisk(ctx context.Context, l *Lab, server string) error {
	err := powerOff(ctx, l, server)
	if err == nil {
		err = errors.Join(os.RemoveAll(l.oldDisk(server)), run(ctx, "cp", "-a", l.disk(server), l.oldDisk(server)))
	}
	return errors.Join(err, powerOn(ctx, l, server))
}

// restoreDisk puts the copy in the place of what has become of the database of a server that is off.
func restoreDisk(ctx context.Context, l *Lab, server string) error {
	if err := wipe(ctx, l, server); err != nil {
		return err
	}
	return run(ctx, "mv", l.oldDisk(server), l.disk(server))
}

func (l *Lab) oldDisk(server string) string { return l.disk(server) + "-old" }

func run(ctx context.Context, words ...string) error {
	if out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", words, err, out)
	}
	return nil
}

// smallDisk puts a small, empty disk where a running server keeps its
// database, until the server is started anew.
func smallDisk(ctx context.Context, l *Lab, server string) error {
	node, err := l.node(server)
	if err != nil {
		return err
	}
	// Node must not see the database end before the new disk is there.
	if err := syscall.Kill(node, syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = syscall.Kill(node, syscall.SIGCONT) }()
	if err := killDatabase(ctx, l, server); err != nil {
		return err
	}
	return run(ctx, "nsenter", "-t", strconv.Itoa(node), "-m", "mount", "-t", "tmpfs", "-o", "size=800m,mode=700,uid=mysql,gid=mysql", "tmpfs", databaseDir)
}

// node is the process of a server's node.
func (l *Lab) node(server string) (int, error) {
	nodes, err := l.Processes(server, nodeWord)
	if err == nil && len(nodes) != 1 {
		err = fmt.Errorf("%s runs node as %v", server, nodes)
	}
	if err != nil {
		return 0, err
	}
	return nodes[0], nil
}

// filler is the file that takes all room on a server's small disk, as this machine sees it.
func (l *Lab) filler(server string) (string, error) {
	node, err := l.node(server)
	return filepath.Join("/proc", strconv.Itoa(node), "root", databaseDir, "filler"), err
}

// fillDisk leaves no room on a server's small disk.
func fillDisk(_ context.Context, l *Lab, server string) error {
	name, err := l.filler(server)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("fill the disk of %s: %w", server, err)
	}
	return nil
}

// emptyDisk undoes fillDisk.
func emptyDisk(_ context.Context, l *Lab, server string) error {
	name, err := l.filler(server)
	if err != nil {
		return err
	}
	return os.Remove(name)
}

// bigDisk starts a server anew with the disk that it had.
func bigDisk(ctx context.Context, l *Lab, server string) error {
	return inTurn(powerOff, powerOn)(ctx, l, server)
}

// leads ends the databases of other writers until the server, which must be the
// first in line, is the writer.
func leads(ctx context.Context, l *Lab, server string) error {
	return until(ctx, syncedLimit, func() error {
		s, err := l.Status(ctx)
		switch {
		case err != nil:
			return err
		case !s.Healthy || s.Writer == "":
			return errors.New("the lab is not healthy")
		case s.Writer != server:
			return errors.Join(fmt.Errorf("%s is the writer, want %s", s.Writer, server), killDatabase(ctx, l, s.Writer))
		}
		return l.Synced(ctx)
	})
}

// twoThenThird takes the power of two servers, and a little later that of the writer.
func twoThenThird(ctx context.Context, l *Lab, _ string) error {
	s, err := l.Status(ctx)
	if err != nil {
		return err
	}
	return inTurn(onOthers(powerOff), wait(time.Second), powerOff)(ctx, l, s.Writer)
}

// offAgain takes the power of all, gives it back, and takes it again once a
// database has begun to recover.
func offAgain(ctx context.Context, l *Lab, _ string) error {
	if err := everywhere(powerOff)(ctx, l, ""); err != nil {
		return err
	}
	starting, cancel := context.WithCancel(ctx)
	started := make(chan struct{})
	go func() {
		defer close(started)
		_ = everywhere(powerOn)(starting, l, "") // it is given up
	}()
	err := until(ctx, syncedLimit, func() error {
		for _, server := range Servers {
			if pids, err := l.Processes(server, "wsrep-new-cluster"); err == nil && len(pids) > 0 {
				return nil
			}
		}
		return errors.New("no database has begun to recover")
	})
	cancel()
	<-started
	return errors.Join(err, everywhere(powerOff)(ctx, l, ""))
}
