package node

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A part that does not stop takes no time from the next.
func TestStopsHaveTimeOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		err := errors.Join(atOnce(ended, stopServing, hang, hang), atOnce(ended, stopApp, hang), atOnce(ended, stopDatabase, hang))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want the deadlines", err)
		}
		took := time.Since(begun)
		if want := stopServing + stopApp + stopDatabase; took != want {
			t.Errorf("took %s, want %s", took, want)
		}
		if limit := 20 * time.Second; took >= limit {
			t.Errorf("took %s, a server has %s", took, limit)
		}
	})
}
