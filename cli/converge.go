package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"trivet/internal/release"
	"trivet/lab"
	"trivet/node"
)

const pollEvery = 200 * time.Millisecond

// converge pushes d to the servers and waits until it is in force everywhere and all is healthy.
func converge(ctx context.Context, l *lab.Lab, d node.Declared, rel *release.Release, p *progress) error {
	if err := until(ctx, func() (bool, error) {
		o := overview(ctx, l)
		p.show(o)
		return o.Quorum, nil
	}); err != nil {
		return err
	}
	a, err := answerers(l)
	if err != nil {
		return err
	}
	revision, err := push(ctx, a, d, rel)
	if err != nil {
		return err
	}
	return await(ctx, l, revision, p)
}

// await waits until every part on every server has the revision in force and is healthy.
func await(ctx context.Context, l *lab.Lab, revision int64, p *progress) error {
	defer p.end()
	return until(ctx, func() (bool, error) {
		o := overview(ctx, l)
		p.show(o)
		return o.Healthy && o.inForce(revision), nil
	})
}

// inForce reports whether every server that runs has applied the revision.
func (o *fleet) inForce(revision int64) bool {
	for _, s := range o.Servers {
		for _, part := range s.Parts {
			if part.Revision < revision {
				return false
			}
		}
	}
	return true
}

// until asks again and again until the answer is yes, an error, or ctx ends.
func until(ctx context.Context, ask func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := ask()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// push hands the release to every server that answers, at the same time, then
// declares d through one of them. A server that is away fetches the release
// from its peers.
func push(ctx context.Context, a answering, d node.Declared, rel *release.Release) (int64, error) {
	if err := a.some(); err != nil {
		return 0, err
	}
	errs := make([]error, len(a.clients))
	var wg sync.WaitGroup
	for i, c := range a.clients {
		wg.Go(func() { errs[i] = handOver(ctx, c, rel) })
	}
	wg.Wait()
	for i, c := range a.clients {
		if errs[i] != nil {
			continue
		}
		out, err := c.Apply(ctx, d)
		if err == nil {
			return out.Revision, nil
		}
		errs[i] = err
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	return 0, fmt.Errorf("declare the site: %w", errors.Join(errs...))
}

func handOver(ctx context.Context, c *node.Client, rel *release.Release) error {
	if rel.Files == 0 {
		_, err := c.Status(ctx)
		return err
	}
	f, err := os.Open(rel.Tar)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return c.Release(ctx, rel.Hash, f)
}
