package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"trivet/cluster"
	"trivet/internal/part"
)

// keyRestart is held by the server whose mariadbd is being restarted: one at a time.
const keyRestart = "role/database-restart"

const (
	switchLimit  = 8 * time.Second // for a planned switch: transactions are held for less than 3 s of it
	restartLimit = 2 * time.Minute // for a mariadbd to be synced again
	switchEvery  = 20 * time.Millisecond
)

// Switch is a planned switch of the database's writer.
type Switch struct {
	From   string        `json:"from"`
	Writer string        `json:"writer"`
	Epoch  int64         `json:"epoch"`
	Took   time.Duration `json:"took"` // nanoseconds, from the plan to the agreement
}

// handleSwitch moves the writer to the server named, or to any other that can take the writes.
func (n *Node) handleSwitch(r *http.Request) (any, error) {
	return n.switchWriter(r.Context(), r.FormValue("server"))
}

// switchWriter plans the switch and waits until it has been made: by the
// supervisor of the present writer, which knows when no transaction is open.
func (n *Node) switchWriter(ctx context.Context, to string) (Switch, error) {
	begun := time.Now()
	role, err := n.planSwitch(ctx, to)
	if err != nil {
		return Switch{}, fmt.Errorf("switch the writer: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, switchLimit)
	defer cancel()
	tick := time.NewTicker(switchEvery)
	defer tick.Stop()
	planned := false
	for {
		now := n.state().Database
		planned = planned || now.Next == role.Next
		switch {
		case now.Writer == role.Next && now.Epoch > role.Epoch:
			return Switch{From: role.Writer, Writer: now.Writer, Epoch: now.Epoch, Took: time.Since(begun)}, nil
		case now.Epoch > role.Epoch:
			return Switch{}, fmt.Errorf("switch the writer: %s was lost meanwhile, and %s took over", role.Writer, now.Writer)
		case planned && now.Next == "":
			return Switch{}, fmt.Errorf("switch the writer: %s gave it up; `trivet logs %s node` says why", role.Writer, role.Writer)
		}
		select {
		case <-ctx.Done():
			return Switch{}, fmt.Errorf("switch the writer: not done after %s", switchLimit)
		case <-tick.C:
		}
	}
}

// planSwitch agrees on the next writer and returns the role with it.
func (n *Node) planSwitch(ctx context.Context, to string) (part.DatabaseRole, error) {
	s := n.state()
	next, err := nextWriter(s, to)
	if err != nil {
		return part.DatabaseRole{}, err
	}
	role := s.Database
	role.Next = next
	return role, n.planWriter(ctx, role.Epoch, next)
}

// nextWriter is the server to switch to: the one asked for, or the first that can.
func nextWriter(s part.State, to string) (string, error) {
	if !s.Quorum {
		return "", cluster.ErrNoQuorum
	}
	if s.Database.Writer == "" {
		return "", errors.New("no server takes the writes now")
	}
	if to != "" {
		if _, ok := s.Member(to); !ok {
			return "", fmt.Errorf("the site has no server %q", to)
		}
	}
	var why []string
	for _, m := range s.Members {
		if to != "" && m.Name != to {
			continue
		}
		word := unfit(s, m, to != "")
		if word == "" {
			return m.Name, nil
		}
		why = append(why, m.Name+" "+word)
	}
	return "", errors.New(strings.Join(why, ", "))
}

// unfit is why m cannot take over the writes; empty: it can. A drained one can if it is asked for.
func unfit(s part.State, m part.Member, asked bool) string {
	switch {
	case m.Name == s.Database.Writer:
		return "takes the writes already"
	case !m.Alive:
		return "is not there"
	case m.Database.State != part.DatabaseSynced:
		return "is not synced"
	case m.Drained && !asked:
		return "is drained"
	}
	return ""
}

// planWriter makes next the planned writer, or nobody, if the agreed epoch is still epoch.
func (n *Node) planWriter(ctx context.Context, epoch int64, next string) error {
	return n.changeRole(ctx, func(r *part.DatabaseRole) error {
		if r.Epoch != epoch {
			return fmt.Errorf("plan writer %s: %w", next, cluster.ErrConflict)
		}
		r.Next = next
		return nil
	})
}

// routed makes known that this server's router goes by s.
func (n *Node) routed(s part.State) {
	holds := int64(0)
	if s.Database.Next != "" {
		holds = s.Database.Epoch
	}
	accepts := part.Fingerprint(cmp.Or(s.Secrets[part.SecretAppDatabaseNext], s.Secrets[part.SecretAppDatabase]))
	n.mu.Lock()
	changed := n.holds != holds || n.accepts != accepts
	n.holds, n.accepts = holds, accepts
	n.mu.Unlock()
	if changed {
		n.kick()
	}
}

// openTransactions asks this server's router what still goes through it to the writer.
func (n *Node) openTransactions(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	data, err := n.workers[part.Router].Inspect(ctx)
	if err != nil {
		return 0, err
	}
	var says part.RouterStatus
	if err := json.Unmarshal(data, &says); err != nil {
		return 0, fmt.Errorf("read the router's word: %w", err)
	}
	if !says.Held {
		return 0, errors.New("the router does not hold new transactions yet")
	}
	return says.Open, nil
}

// handleRestart restarts this server's mariadbd and answers when it is synced again.
func (n *Node) handleRestart(r *http.Request) (any, error) {
	return struct{}{}, n.restartDatabase(r.Context())
}

// restartDatabase refuses where that would interrupt the site: one mariadbd at
// a time, not the writer's, and only while all others are synced.
func (n *Node) restartDatabase(ctx context.Context) error {
	if err := restartable(n.state()); err != nil {
		return fmt.Errorf("restart database: %w", err)
	}
	mine, err := n.cluster.Acquire(ctx, keyRestart, []byte(n.name))
	if err != nil {
		return err
	}
	if !mine {
		return errors.New("restart database: another server's is being restarted")
	}
	// Once begun it goes on, whether or not who asked still waits.
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), restartLimit, fmt.Errorf("after %s", restartLimit))
	defer cancel()
	err = n.database.Restart(ctx)
	if e := n.cluster.Delete(context.WithoutCancel(ctx), keyRestart); e != nil {
		n.log.Warn("end the role of who restarts", "err", e)
	}
	return err
}

// restartable says why this server's mariadbd is not to be restarted now; nil: it may be.
func restartable(s part.State) error {
	if !s.Quorum {
		return cluster.ErrNoQuorum
	}
	if s.Database.Writer == s.Server || s.Database.Next == s.Server {
		return errors.New("this server takes the writes; `trivet db switch` moves them")
	}
	i := slices.IndexFunc(s.Members, func(m part.Member) bool {
		return m.Name != s.Server && (!m.Alive || m.Database.State != part.DatabaseSynced)
	})
	if i >= 0 {
		return fmt.Errorf("%s is not synced, and one at a time is enough", s.Members[i].Name)
	}
	return nil
}
