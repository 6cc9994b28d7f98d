package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"trivet/cluster"
	"trivet/internal/pace"
	"trivet/internal/part"
)

// The app's database password changes in steps, none of which refuses anyone:
//
//  1. The new one is agreed as the next. The database and every router take both.
//  2. It becomes the password, and the former the old one. Every server rolls its app's instances.
//  3. When no instance has the old one any more, it is forgotten, and refused.
//
// One node at a time takes the steps; each can be taken again.

// rotation is how far that has come.
type rotation struct {
	At   time.Time `json:"at"`             // when the last one began
	Next string    `json:"next,omitempty"` // what the password is about to become
	Old  string    `json:"old,omitempty"`  // what it was, for who still has it
}

func (r rotation) underWay() bool { return r.Next != "" || r.Old != "" }

// Rotation is what a node says of it.
type Rotation struct {
	At      time.Time `json:"at"` // when the last one began
	Done    bool      `json:"done"`
	Waiting string    `json:"waiting,omitempty"` // for what, if it is not done
}

const (
	keyPassword     = "role/rotation"  // held by the server that takes the steps
	rotationEvery   = time.Second      // between two steps
	rotationSettled = 10 * time.Second // beyond the app's grace, for its former instances to end
)

// rotatePassword takes the steps that are due until ctx ends.
func (n *Node) rotatePassword(ctx context.Context) {
	timer := time.NewTimer(rotationEvery)
	defer timer.Stop()
	var moved time.Time // since when all instances have the new password
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if err := n.rotateStep(ctx, &moved); err != nil && ctx.Err() == nil {
			n.log.Warn("change the app's database password", "err", err)
		}
		timer.Reset(pace.Next(rotationEvery))
	}
}

// rotateStep takes the next step, if it is this server that takes them. moved
// is since when all instances have the new password.
func (n *Node) rotateStep(ctx context.Context, moved *time.Time) error {
	s, r := n.rotating()
	since := *moved
	*moved = time.Time{}
	if !s.Quorum || !r.underWay() && !rotationDue(s, r, time.Now()) {
		return nil
	}
	mine, err := n.cluster.Acquire(ctx, keyPassword, []byte(n.name))
	switch {
	case err != nil || !mine:
		return err
	case !r.underWay():
		_, err = n.beginRotation(ctx)
		return err
	case waitsFor(s, r) != "":
		return nil
	case r.Next != "":
		return n.promote(ctx, r)
	case since.IsZero():
		since = time.Now()
	}
	if *moved = since; time.Since(since) < s.Site.App.Grace.Std()+rotationSettled {
		return nil
	}
	n.log.Info("the app's former database password is refused from now on")
	return n.changeRotation(ctx, func(now *rotation) { now.Old = "" })
}

// rotating is what the steps are decided from.
func (n *Node) rotating() (part.State, rotation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.composed, n.agreed.Rotation
}

// rotationDue reports whether the site's schedule wants a new password. It
// waits until all is well: a server that is away would keep the old one for long.
func rotationDue(s part.State, r rotation, now time.Time) bool {
	every := s.Site.Database.Rotate.Std()
	return every > 0 && !r.At.IsZero() && now.Sub(r.At) >= every && unreadyFor(s) == ""
}

// unreadyFor says why no rotation may begin.
func unreadyFor(s part.State) string {
	if s.Database.Writer == "" {
		return "no server takes the database's writes"
	}
	for _, m := range s.Members {
		switch {
		case !m.Alive:
			return m.Name + " is not there"
		case m.Problems[part.App] != "":
			return m.Name + " has a problem with app (" + m.Problems[part.App] + ")"
		}
	}
	return ""
}

// waitsFor says what the next step waits for; empty: for nothing.
func waitsFor(s part.State, r rotation) string {
	if next := part.Fingerprint(r.Next); next != "" && r.Next != s.Secrets[part.SecretAppDatabase] {
		if w, ok := s.Member(s.Database.Writer); !ok || w.Database.Accepts != next {
			return "the database to take the new password"
		}
		for _, m := range s.Members {
			if m.Alive && m.Accepts != next {
				return "the router of " + m.Name + " to take the new password"
			}
		}
		return ""
	}
	now := part.Fingerprint(s.Secrets[part.SecretAppDatabase])
	for _, m := range s.Members {
		switch {
		case r.Next != "":
		case !m.Alive:
			return m.Name + ", which is not there and may have instances with the old password"
		case m.Uses != now:
			return "the app's instances on " + m.Name + " to be rolled"
		}
	}
	return ""
}

// promote makes the next password the password.
func (n *Node) promote(ctx context.Context, r rotation) error {
	key := prefixSecret + part.SecretAppDatabase
	v, err := n.cluster.Get(ctx, key)
	if err != nil {
		return err
	}
	if former := string(v.Data); former != r.Next {
		if err := n.changeRotation(ctx, func(now *rotation) { now.Old = former }); err != nil {
			return err
		}
		if _, err := n.cluster.Swap(ctx, key, v.Revision, []byte(r.Next)); err != nil {
			return err
		}
		n.log.Info("the app gets its new database password")
	}
	return n.changeRotation(ctx, func(now *rotation) { now.Next = "" })
}

// beginRotation agrees on a new password as the next, unless one is agreed already.
func (n *Node) beginRotation(ctx context.Context) (at time.Time, err error) {
	n.log.Info("the app's database password is being changed")
	err = n.changeRotation(ctx, func(r *rotation) {
		if !r.underWay() {
			r.Next, r.At = rand.Text(), time.Now().UTC()
		}
		at = r.At
	})
	return at, err
}

// changeRotation changes what is agreed of it by compare-and-swap.
func (n *Node) changeRotation(ctx context.Context, change func(*rotation)) error {
	v, err := n.cluster.Get(ctx, keyRotation)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return err
	}
	var r rotation
	if err == nil {
		if err := json.Unmarshal(v.Data, &r); err != nil {
			return fmt.Errorf("read rotation: %w", err)
		}
	}
	change(&r)
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = n.cluster.Swap(ctx, keyRotation, v.Revision, data)
	return err
}

// appMoved makes known which password the app's instances have.
func (n *Node) appMoved(s part.State) {
	uses := part.Fingerprint(s.Secrets[part.SecretAppDatabase])
	n.mu.Lock()
	changed := n.uses != uses
	n.uses = uses
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}

// handleRotate begins a rotation, unless one is under way.
func (n *Node) handleRotate(r *http.Request) (any, error) {
	s, now := n.rotating()
	if now.underWay() {
		return nil, fmt.Errorf("change the database password: a change is under way; it waits for %s", waitsFor(s, now))
	}
	if why := unreadyFor(s); why != "" {
		return nil, fmt.Errorf("change the database password: %s", why)
	}
	at, err := n.beginRotation(r.Context())
	if err != nil {
		return nil, fmt.Errorf("change the database password: %w", err)
	}
	return Rotation{At: at}, nil
}

// rotation says how far it is.
func (n *Node) rotation() Rotation {
	s, r := n.rotating()
	out := Rotation{At: r.At, Done: !r.underWay()}
	if out.Done {
		return out
	}
	if out.Waiting = waitsFor(s, r); out.Waiting == "" && r.Next == "" {
		out.Waiting = "the app's former instances to end"
	}
	return out
}
