package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"trivet/internal/part"
)

// handleForce has a server start the database alone, by an operator's word.
func (n *Node) handleForce(r *http.Request) (any, error) {
	var f part.DatabaseForce
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&f); err != nil {
		return nil, fmt.Errorf("read who is to start: %w", err)
	}
	return struct{}{}, n.force(r.Context(), f)
}

// force agrees that f.Server starts the database alone, for the loss of what
// the servers in f.Lose hold. It is refused while that would lose more.
func (n *Node) force(ctx context.Context, f part.DatabaseForce) error {
	f, err := n.database.Choose(f.Server, f.Lose)
	if err != nil {
		return err
	}
	if !n.cluster.Quorum() {
		return n.forceAlone(f)
	}
	n.log.Warn("an operator has a server start the database alone", "part", part.Database, "server", f.Server, "gives_up", strings.Join(f.Lose, " "))
	err = n.changeRole(ctx, func(r *part.DatabaseRole) error { r.Force = f; return nil })
	if err != nil {
		return fmt.Errorf("agree that %s starts the database alone: %w", f.Server, err)
	}
	return nil
}

// forceAlone has this server start the database without the cluster: an
// operator says that the others are dead. It is agreed when one is back.
func (n *Node) forceAlone(f part.DatabaseForce) error {
	if f.Server != n.name {
		return fmt.Errorf("have %s start the database: without quorum only %s itself can be asked", f.Server, f.Server)
	}
	n.log.Warn("an operator has this server start the database without the cluster", "part", part.Database, "gives_up", strings.Join(f.Lose, " "))
	n.mu.Lock()
	own := ownRole{Base: n.agreed.Role, Role: n.agreed.effective()}
	n.mu.Unlock()
	own.Role.Force = f
	n.setOwn(&own)
	return nil
}
