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
		return l.removeKinds(Run, Log)
	}
	if err := os.RemoveAll(l.dir()); err != nil {
		return fmt.Errorf("remove lab %q: %w", l.Name, err)
	}
	return removeShared(ctx)
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

// removeShared removes what all labs share, if none is left.
func removeShared(ctx context.Context) error {
	names, err := Names()
	if err != nil || len(names) > 0 {
		return err
	}
	if err := RemoveUsers(ctx); err != nil {
		return err
	}
	// Each goes only if it is empty: a real server's files stay.
	_ = os.Remove(Root)
	for _, m := range seen {
		_ = os.Remove(m.at)
	}
	return nil
}
