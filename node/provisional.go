package node

import (
	"context"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"trivet/cluster"
	"trivet/internal/part"
)

// provisionalAfter is how long there must have been no quorum before a writer
// is taken without it: a cluster that elects a new leader is back before.
const provisionalAfter = 1500 * time.Millisecond

// provisional is who takes the writes while the cluster cannot agree, and the
// database's group, which has its own quorum, goes on: if role's writer is not
// in it, the lowest name, under the next epoch. All servers of one group come
// to the same. Galera admits one group that may write at a time; so who is in
// it may act on its word. The result is role if nothing is to be changed.
func provisional(role part.DatabaseRole, self part.DatabaseMember) part.DatabaseRole {
	if role.Writer == "" || self.Group == "" || self.UUID != role.UUID {
		return role
	}
	group := strings.Split(self.Group, ",")
	if slices.Contains(group, role.Writer) {
		return role
	}
	role.Writer, role.Next, role.Epoch = slices.Min(group), "", role.Epoch+1
	return role
}

// ownRole is a role that an operator had this server take without the cluster.
type ownRole struct {
	Base part.DatabaseRole `json:"base"` // what was agreed then
	Role part.DatabaseRole `json:"role"`
}

// provisionalRole is a writer that this server took, or saw, without quorum.
type provisionalRole struct {
	Writer string `json:"writer,omitempty"`
	Epoch  int64  `json:"epoch,omitempty"`
}

// effective is the role that is in force here: the agreed one, unless an
// operator or a loss of quorum had this server go beyond it.
func (a agreed) effective() part.DatabaseRole {
	role := a.Role
	if a.Own != nil {
		role = a.Own.Role
	}
	if a.Provisional.Epoch > role.Epoch {
		role.Writer, role.Next, role.Epoch = a.Provisional.Writer, "", a.Provisional.Epoch
	}
	return role
}

// provide takes a writer without quorum if need be, and has it agreed when the
// cluster can do that again.
func (n *Node) provide(ctx context.Context) {
	quorum := n.cluster.Quorum()
	n.mu.Lock()
	lost, role := n.lost, n.agreed.effective()
	next := provisional(role, n.member)
	unsettled := !reflect.DeepEqual(n.agreed.Provisional.settle(n.agreed.Role), n.agreed.Role)
	take := !quorum && !lost.IsZero() && time.Since(lost) >= provisionalAfter && next.Epoch > role.Epoch
	if take {
		n.agreed.Provisional = provisionalRole{Writer: next.Writer, Epoch: next.Epoch}
	}
	a := n.agreed
	n.mu.Unlock()
	switch {
	case quorum && a.Own != nil:
		n.settleOwn(ctx, a)
	case take:
		n.log.Warn("the cluster has no quorum, and the database's writer left its group: another takes the writes", "part", part.Database, "writer", next.Writer, "instead_of", role.Writer, "epoch", next.Epoch)
		if err := a.save(filepath.Join(part.LibDir, LastGoodFile)); err != nil {
			n.log.Error("keep last good state", "err", err)
		}
	case quorum && unsettled:
		n.agreeProvisional(ctx, a.Provisional)
	}
}

// settle is the role to be agreed on when the cluster can agree again: p's
// writer if p is later; and if another was agreed under p's own epoch, that one
// under the next, so that each epoch has one writer everywhere.
func (p provisionalRole) settle(r part.DatabaseRole) part.DatabaseRole {
	switch {
	case p.Epoch > r.Epoch:
		r.Writer, r.Next, r.Epoch = p.Writer, "", p.Epoch
	case p.Epoch == r.Epoch && p.Epoch > 0 && p.Writer != r.Writer:
		r.Next, r.Epoch = "", r.Epoch+1
	}
	return r
}

// agreeProvisional has the cluster agree after a writer was taken without it.
func (n *Node) agreeProvisional(ctx context.Context, p provisionalRole) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := n.changeRole(ctx, func(r *part.DatabaseRole) error { *r = p.settle(*r); return nil })
	if err != nil {
		n.log.Info("agree on the database's writer", "writer", p.Writer, "epoch", p.Epoch, "err", err)
	}
}

// settleOwn has the cluster agree on the role that this server took alone. If
// the others agreed on something else meanwhile, theirs counts: this server's
// data then come from a start that nobody knows, and are replaced.
func (n *Node) settleOwn(ctx context.Context, a agreed) {
	own := *a.Own
	switch {
	case slices.ContainsFunc(a.Role.Starts, func(s part.DatabaseStart) bool { return s.ID == own.Role.LastStart().ID }):
		n.setOwn(nil)
	case !reflect.DeepEqual(a.Role, own.Base):
		n.log.Error("the others went on without this server: what it did alone is given up", "part", part.Database)
		n.setOwn(nil)
	default:
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		err := n.changeRole(ctx, func(r *part.DatabaseRole) error {
			if !reflect.DeepEqual(*r, own.Base) {
				return cluster.ErrConflict
			}
			*r = a.effective()
			return nil
		})
		if err != nil {
			n.log.Info("agree on what this server did alone", "err", err)
		}
	}
}

// setOwn changes the role that this server has of its own; nil: none.
func (n *Node) setOwn(own *ownRole) {
	n.mu.Lock()
	n.agreed.Own = own
	a := n.agreed
	n.mu.Unlock()
	if err := a.save(filepath.Join(part.LibDir, LastGoodFile)); err != nil {
		n.log.Error("keep last good state", "err", err)
	}
	n.kick()
}

// changeOwn changes this server's own role; false if it has none.
func (n *Node) changeOwn(change func(*part.DatabaseRole) error) (bool, error) {
	n.mu.Lock()
	if n.agreed.Own == nil {
		n.mu.Unlock()
		return false, nil
	}
	own := *n.agreed.Own
	n.mu.Unlock()
	if err := change(&own.Role); err != nil {
		return true, err
	}
	n.setOwn(&own)
	return true, nil
}
