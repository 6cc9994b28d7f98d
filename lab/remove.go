package lab

import (
	"context"
	"errors"
	"fmt"
	"os"

	"trivet/internal/link"
)

// Remove takes the lab away: processes, namespaces, cables, bridge, mounts,
// control groups, folders. With the last lab go the users that labs made and
// the folders that they were seen in. With keepData the lab's lab.json and
// each server's Lib stay, and so do the users who own what is in it: Open finds
// the lab again, with every server off. It does not shut down cleanly; call
// Shutdown first. It can be repeated, also after it was cut short.
func (l *Lab) Remove(ctx context.Context, keepData bool) error {
	for _, server := range l.Servers {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("remove lab %q: %w", l.Name, err)
		}
		if err := l.Kill(ctx, server); err != nil {
			return fmt.Errorf("remove lab %q: %w", l.Name, err)
		}
	}
	if err := link.DeleteLink(l.Bridge()); err != nil {
		return fmt.Errorf("remove lab %q: %w", l.Name, err)
	}
	if keepData {
		if err := l.removeKinds(Run, Log); err != nil {
			return err
		}
	} else if err := l.removeFolder(); err != nil {
		return fmt.Errorf("remove lab %q: %w", l.Name, err)
	}
	return removeShared(ctx)
}

// removeFolder removes lab.json last: while it is there, Open finds what is left to remove.
func (l *Lab) removeFolder() error {
	entries, err := os.ReadDir(l.dir())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lab.json" {
			continue
		}
		if err := os.RemoveAll(l.dir(e.Name())); err != nil {
			return err
		}
	}
	return os.RemoveAll(l.dir())
}

func (l *Lab) removeKinds(kinds ...string) error {
	var errs []error
	for _, server := range l.Servers {
		for _, kind := range kinds {
			errs = append(errs, os.RemoveAll(l.Dir(server, kind)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove lab %q: %w", l.Name, err)
	}
	return nil
}

// removeShared removes what all labs share: the folders that servers are seen
// in if no lab is up, the users and Root if none is left.
func removeShared(ctx context.Context) error {
	names, err := Names()
	if err != nil {
		return err
	}
	up, err := anyUp(names)
	if up || err != nil {
		return err // a folder that is removed here takes the mounts on it, in any namespace, with it
	}
	if len(names) == 0 {
		if err := RemoveUsers(ctx); err != nil {
			return err
		}
		_ = os.Remove(Root)
	}
	for _, m := range seen {
		_ = os.Remove(m.at) // only if it is empty: a real server's files stay
	}
	return nil
}

func anyUp(names []string) (bool, error) {
	for _, name := range names {
		l, err := Open(name)
		if err != nil {
			return false, err
		}
		if up, err := l.isUp(); up || err != nil {
			return up, err
		}
	}
	return false, nil
}
