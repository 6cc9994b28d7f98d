package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Value is what a key holds.
type Value struct {
	Data     []byte
	Revision int64 // of its last change: what Swap compares
}

// Get returns the key's value as the cluster agrees on it now, or ErrMissing.
func (c *Cluster) Get(ctx context.Context, key string) (Value, error) {
	var v Value
	err := c.do(ctx, "read "+key, func(ctx context.Context, m *member) error {
		resp, err := m.client.Get(ctx, key)
		for errors.Is(err, rpctypes.ErrLeaderChanged) && ctx.Err() == nil {
			resp, err = m.client.Get(ctx, key)
		}
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return ErrMissing
		}
		v = value(resp.Kvs[0])
		return nil
	})
	return v, err
}

// Put sets the key, whatever it held, and returns the new revision. After an
// error it may still take effect.
func (c *Cluster) Put(ctx context.Context, key string, data []byte) (int64, error) {
	var rev int64
	err := c.do(ctx, "write "+key, func(ctx context.Context, m *member) error {
		resp, err := m.client.Put(ctx, key, string(data))
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	return rev, err
}

// Swap sets the key if its revision is still prev (0: if it does not exist),
// and returns the new revision; ErrConflict if it is not. After another error
// it may still take effect.
func (c *Cluster) Swap(ctx context.Context, key string, prev int64, data []byte) (int64, error) {
	var rev int64
	err := c.do(ctx, "change "+key, func(ctx context.Context, m *member) error {
		resp, err := m.client.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", prev)).
			Then(clientv3.OpPut(key, string(data))).Commit()
		if err != nil {
			return err
		}
		if !resp.Succeeded {
			return ErrConflict
		}
		rev = resp.Header.Revision
		return nil
	})
	return rev, err
}

// Delete removes the key; nil also if it did not exist. What was announced or
// acquired under it is forgotten.
func (c *Cluster) Delete(ctx context.Context, key string) error {
	c.lease.forget(key)
	return c.do(ctx, "delete "+key, func(ctx context.Context, m *member) error {
		_, err := m.client.Delete(ctx, key)
		return err
	})
}

// Watch calls changed with everything under prefix, by full key: once at the
// start and after each change (many changes at once may make one call), until
// ctx ends. It reads this server's own copy: without quorum it goes on showing
// the last known content, and it outlives the member's restarts. Calls do not
// overlap; the map is the callee's.
func (c *Cluster) Watch(ctx context.Context, prefix string, changed func(map[string]Value)) {
	w := watch{prefix: prefix, changed: changed}
	for ctx.Err() == nil {
		m, err := c.member(ctx)
		if err != nil {
			return
		}
		w.follow(ctx, m)
		pause(ctx, retryMin)
	}
}

type watch struct {
	prefix  string
	changed func(map[string]Value)
	values  map[string]Value
}

// follow tells the content and all changes until m stops or the history that is needed is gone.
func (w *watch) follow(ctx context.Context, m *member) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := m.client.Get(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithSerializable())
	if err != nil {
		return
	}
	w.replace(resp.Kvs)
	changes := m.client.Watch(ctx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(resp.Header.Revision+1))
	for {
		select {
		case <-m.etcd.Server.StoppingNotify():
			return
		case r, ok := <-changes:
			if !ok || r.Err() != nil {
				return
			}
			w.apply(r.Events)
			if !w.drain(changes) {
				return
			}
			w.changed(maps.Clone(w.values))
		}
	}
}

// drain applies what has arrived in the meantime; false when the watch is over.
func (w *watch) drain(changes clientv3.WatchChan) bool {
	for {
		select {
		case r, ok := <-changes:
			if !ok || r.Err() != nil {
				return false
			}
			w.apply(r.Events)
		default:
			return true
		}
	}
}

// replace takes kvs as the whole content, and tells it unless it is what was told last.
func (w *watch) replace(kvs []*mvccpb.KeyValue) {
	values := make(map[string]Value, len(kvs))
	for _, kv := range kvs {
		values[string(kv.Key)] = value(kv)
	}
	same := func(a, b Value) bool { return a.Revision == b.Revision && slices.Equal(a.Data, b.Data) }
	if w.values != nil && maps.EqualFunc(values, w.values, same) {
		return
	}
	w.values = values
	w.changed(maps.Clone(values))
}

func (w *watch) apply(events []*clientv3.Event) {
	for _, e := range events {
		if e.Type == clientv3.EventTypeDelete {
			delete(w.values, string(e.Kv.Key))
		} else {
			w.values[string(e.Kv.Key)] = value(e.Kv)
		}
	}
}

func value(kv *mvccpb.KeyValue) Value {
	return Value{Data: kv.Value, Revision: kv.ModRevision}
}
