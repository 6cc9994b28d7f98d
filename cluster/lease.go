package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdlease "go.etcd.io/etcd/server/v3/lease"

	"trivet/internal/pace"
)

// The lease. Its deadline is counted here from before each renewal was sent,
// the cluster's from when it arrived, so that this server knows that its lease
// has ended no later than the others do.
const (
	leaseTTL      = 2 * time.Second
	renewInterval = 500 * time.Millisecond
	renewTimeout  = 400 * time.Millisecond // to the leader; it may just have died
	renewRetry    = 50 * time.Millisecond  // after a renewal that failed
)

// lease is the member's lease and what hangs on it.
type lease struct {
	mu        sync.Mutex
	id        clientv3.LeaseID // 0: none
	deadline  time.Time
	changed   chan struct{} // closed when id changes
	announced map[string]*announcement
	held      map[string]clientv3.LeaseID // keys that Acquire got, and by which lease

	wake chan struct{} // the announcer looks again
}

type announcement struct {
	data []byte
	by   clientv3.LeaseID // the lease under which it was put; 0: not yet
	lock sync.Mutex       // one put at a time, so that the last said is the last put
}

func newLease() lease {
	return lease{
		changed:   make(chan struct{}),
		announced: map[string]*announcement{},
		held:      map[string]clientv3.LeaseID{},
		wake:      make(chan struct{}, 1),
	}
}

// LeaseValid reports whether this member's lease is certainly alive: false
// when no renewal has succeeded for its lifetime. What it held must then be
// taken for lost, for another may have it.
func (c *Cluster) LeaseValid() bool {
	c.lease.mu.Lock()
	defer c.lease.mu.Unlock()
	return c.lease.valid()
}

func (l *lease) valid() bool { return l.id != 0 && time.Now().Before(l.deadline) }

// Holds reports whether key was acquired under the lease that is alive now. A
// holder asks this before it acts, and lets go when it is false.
func (c *Cluster) Holds(key string) bool {
	c.lease.mu.Lock()
	defer c.lease.mu.Unlock()
	return c.lease.valid() && c.lease.held[key] == c.lease.id
}

// Announce puts key under this member's lease: it vanishes when this server is
// gone. It is remembered, and put again by itself whenever the lease was lost,
// even if this first attempt returns an error.
func (c *Cluster) Announce(ctx context.Context, key string, data []byte) error {
	c.lease.announce(key, data)
	return c.do(ctx, "announce "+key, func(ctx context.Context, m *member) error {
		return c.putAnnouncement(ctx, m, key)
	})
}

// Acquire takes key under this member's lease if nobody holds it, or if what
// is there equals data: a node that restarted resumes what it held. data must
// be this server's own. False without an error: another holds it.
func (c *Cluster) Acquire(ctx context.Context, key string, data []byte) (bool, error) {
	held, known := c.glance(ctx, key, string(data))
	if known {
		return held, nil
	}
	err := c.do(ctx, "acquire "+key, func(ctx context.Context, m *member) error {
		id, err := c.lease.wait(ctx)
		if err != nil {
			return err
		}
		held, err = acquire(ctx, m.client, key, string(data), id)
		c.lease.hold(key, id, held && err == nil)
		return err
	})
	return held && err == nil, err
}

// glance answers for Acquire from this server's copy, if that suffices: what
// it shows may be a moment old, but so may any answer.
func (c *Cluster) glance(ctx context.Context, key, data string) (held, known bool) {
	m := c.current()
	if m == nil || !c.Quorum() {
		return false, false
	}
	resp, err := m.client.Get(ctx, key, clientv3.WithSerializable())
	if err != nil || len(resp.Kvs) == 0 {
		return false, false
	}
	if string(resp.Kvs[0].Value) != data {
		return false, true
	}
	return true, c.Holds(key) && clientv3.LeaseID(resp.Kvs[0].Lease) == c.lease.current()
}

func acquire(ctx context.Context, client *clientv3.Client, key, data string, id clientv3.LeaseID) (bool, error) {
	put := clientv3.OpPut(key, data, clientv3.WithLease(id))
	resp, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(put).Else(clientv3.OpGet(key)).Commit()
	if err != nil || resp.Succeeded {
		return err == nil, err
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 || string(kvs[0].Value) != data {
		return false, nil
	}
	if clientv3.LeaseID(kvs[0].Lease) == id {
		return true, nil
	}
	resp, err = client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", kvs[0].ModRevision)).
		Then(put).Commit()
	return err == nil && resp.Succeeded, err
}

// keepLease grants a lease and renews it until ctx ends. A new leader is asked
// at once. The lease of the member's former run is renewed if it still lives.
func (c *Cluster) keepLease(ctx context.Context, m *member) {
	for ctx.Err() == nil {
		leader := m.etcd.Server.LeaderChangedNotify()
		wait := pace.Next(renewInterval)
		if m.etcd.Server.Lead() != 0 && !c.refresh(ctx, m, leader) {
			wait = renewRetry
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-leader:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// refresh renews the lease, or grants one if there is none; false if it has to be tried again soon.
func (c *Cluster) refresh(ctx context.Context, m *member, leader <-chan struct{}) bool {
	id, sent := c.lease.current(), time.Now()
	if id == 0 {
		return c.grant(ctx, m, sent)
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-leader:
			cancel() // the one that was asked leads no more
		case <-done:
		}
	}()
	_, err := m.etcd.Server.LeaseRenew(ctx, etcdlease.LeaseID(id))
	switch {
	case err == nil:
		c.lease.set(id, sent.Add(leaseTTL))
		return true
	case errors.Is(err, etcdlease.ErrLeaseNotFound), errors.Is(err, rpctypes.ErrLeaseNotFound):
		c.conf.Log.Warn("this server's lease in the cluster was lost")
		c.lease.set(0, time.Time{})
	}
	return false
}

func (c *Cluster) grant(ctx context.Context, m *member, sent time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, operationTimeout)
	defer cancel()
	resp, err := m.client.Grant(ctx, int64(leaseTTL/time.Second))
	if err != nil {
		return false
	}
	c.lease.set(resp.ID, sent.Add(leaseTTL))
	return true
}

// keepAnnouncements puts what is announced under each new lease.
func (c *Cluster) keepAnnouncements(ctx context.Context) {
	for {
		for _, key := range c.lease.pending() {
			err := c.do(ctx, "announce "+key, func(ctx context.Context, m *member) error {
				return c.putAnnouncement(ctx, m, key)
			})
			if err != nil {
				pause(ctx, renewInterval)
				c.lease.poke()
			}
		}
		select {
		case <-c.lease.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Cluster) putAnnouncement(ctx context.Context, m *member, key string) error {
	id, err := c.lease.wait(ctx)
	if err != nil {
		return err
	}
	a := c.lease.announcement(key)
	if a == nil {
		return nil // deleted in the meantime
	}
	a.lock.Lock()
	defer a.lock.Unlock()
	data, by := c.lease.said(a)
	if by == id {
		return nil
	}
	if _, err := m.client.Put(ctx, key, string(data), clientv3.WithLease(id)); err != nil {
		return err
	}
	c.lease.put(a, data, id)
	return nil
}

// current returns the lease's id; 0: none.
func (l *lease) current() clientv3.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.id
}

// wait returns the lease's id, once there is one.
func (l *lease) wait(ctx context.Context) (clientv3.LeaseID, error) {
	for {
		l.mu.Lock()
		id, changed := l.id, l.changed
		l.mu.Unlock()
		if id != 0 {
			return id, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (l *lease) set(id clientv3.LeaseID, deadline time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = deadline
	if id == l.id {
		return
	}
	l.id = id
	clear(l.held)
	close(l.changed)
	l.changed = make(chan struct{})
	if id != 0 {
		l.poke()
	}
}

func (l *lease) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lease) hold(key string, id clientv3.LeaseID, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, key)
	if held && id == l.id {
		l.held[key] = id
	}
}

func (l *lease) forget(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, key)
	delete(l.announced, key)
}

func (l *lease) announce(key string, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.announced[key]
	if a == nil {
		a = new(announcement)
		l.announced[key] = a
	}
	a.data, a.by = slices.Clone(data), 0
	l.poke()
}

func (l *lease) announcement(key string) *announcement {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.announced[key]
}

func (l *lease) said(a *announcement) ([]byte, clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return a.data, a.by
}

// put notes that data is in the cluster under lease id, unless something newer was said.
func (l *lease) put(a *announcement, data []byte, id clientv3.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(a.data, data) {
		a.by = id
	}
}

// pending lists the keys that are not put under the current lease.
func (l *lease) pending() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(l.announced)) {
		if l.id != 0 && l.announced[key].by != l.id {
			keys = append(keys, key)
		}
	}
	return keys
}
