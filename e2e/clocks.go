package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A time namespace does not cover CLOCK_REALTIME (time_namespaces(7)), so the
// three servers of a lab have one clock. libfaketime gives one mariadbd another,
// its monotonic clock left alone, as when a wrong clock is set on a server.
const fakeTime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"

// clockOwn restarts a server's mariadbd with a clock of its own, which is right.
func clockOwn(ctx context.Context, l *Lab, server string) error {
	if _, err := os.Stat(fakeTime); err != nil {
		return fmt.Errorf("give mariadbd another clock: %w: install Debian's package libfaketime", err)
	}
	node, err := l.node(server)
	if err != nil {
		return err
	}
	lib := filepath.Join("/proc", strconv.Itoa(node), "root/var/lib/trivet")
	script := "#!/bin/sh\nexport LD_PRELOAD=" + fakeTime + " FAKETIME_TIMESTAMP_FILE=/var/lib/trivet/clock/now FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1\nexec /var/lib/trivet/clock/mariadbd \"$@\"\n"
	err = os.MkdirAll(filepath.Join(lib, "clock"), 0o755)
	if err == nil {
		err = run(ctx, "cp", "/usr/sbin/mariadbd", filepath.Join(lib, "clock", "mariadbd"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(lib, "clock", "script"), []byte(script), 0o755)
	}
	if err == nil {
		err = setClock("+0")(ctx, l, server)
	}
	if err == nil {
		err = run(ctx, "nsenter", "-t", strconv.Itoa(node), "-m", "mount", "--bind", "/var/lib/trivet/clock/script", "/usr/sbin/mariadbd")
	}
	if err != nil {
		return fmt.Errorf("give mariadbd another clock: %w", err)
	}
	return killDatabase(ctx, l, server)
}

// setClock sets a mariadbd's own clock, within a second.
func setClock(offset string) deed {
	return func(_ context.Context, l *Lab, server string) error {
		return os.WriteFile(filepath.Join(l.Dir(server, "lib"), "clock", "now"), []byte(offset+"\n"), 0o644)
	}
}

// showsClock waits until a mariadbd that runs says that its clock is off by so much.
func showsClock(offset time.Duration) deed {
	return func(ctx context.Context, l *Lab, server string) error {
		return until(ctx, syncedLimit, func() error {
			db, err := l.Node(server, "")
			if err != nil {
				return err
			}
			defer func() { _ = db.Close() }()
			var says int64
			if err := db.QueryRowContext(ctx, "SELECT UNIX_TIMESTAMP()").Scan(&says); err != nil {
				return err
			}
			if off := time.Unix(says, 0).Sub(time.Now().Add(offset)).Abs(); off > 5*time.Second {
				return fmt.Errorf("the clock of %s is off by %s, want %s", server, time.Until(time.Unix(says, 0)).Round(time.Second), offset)
			}
			return nil
		})
	}
}

// clockBack starts a server anew with the clock of all.
func clockBack(ctx context.Context, l *Lab, server string) error {
	if err := inTurn(powerOff, powerOn)(ctx, l, server); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(l.Dir(server, "lib"), "clock"))
}
