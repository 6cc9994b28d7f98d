package node

import (
	"context"
	"time"

	"trivet/internal/part"
	"trivet/internal/worker"
)

// renewed are the workers in the order in which a new build takes them over:
// who visitors meet first is also first to be found wanting.
var renewed = []string{part.Balancer, part.Web, part.Router, part.Backup, part.Monitor}

// renew brings this node's build into the workers that it adopted from a node
// of another build, one after the other. The first that fails ends it: the
// former build goes on there and in those after it, and Status says so.
func (n *Node) renew(ctx context.Context) {
	for _, name := range renewed {
		w := n.workers[name]
		if !n.settled(ctx, name, w) {
			return
		}
		if w.Status().Build == n.cfg.Build {
			continue
		}
		if err := w.Replace(ctx); err != nil {
			if ctx.Err() == nil {
				n.log.Error("bring this build into the workers", "build", n.cfg.Build, "err", err)
			}
			return
		}
		n.log.Info("worker runs this build", "worker", name, "build", n.cfg.Build)
	}
}

// settled waits until a process of the worker runs and has answered to a state
// of this node; false if ctx ends before. It need not have taken it: a build that
// does not understand this one's states has to go all the more.
func (n *Node) settled(ctx context.Context, name string, w *worker.Worker) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for w.PID() == 0 || !n.drivers[name].tried() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// tried reports whether some state was applied, or refused.
func (d *driver) tried() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done != nil || d.failed != ""
}
