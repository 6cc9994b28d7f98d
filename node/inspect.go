package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"trivet/internal/part"
)

// handleInspect answers what a part of this server says of itself.
func (n *Node) handleInspect(r *http.Request) (any, error) {
	return n.inspect(r.Context(), r.PathValue("part"))
}

// inspect asks the part, in its worker or here. The router goes by its own name.
func (n *Node) inspect(ctx context.Context, name string) (json.RawMessage, error) {
	if w, ok := n.workers[name]; ok {
		return w.Inspect(ctx)
	}
	d, ok := n.drivers[name]
	if !ok {
		return nil, fmt.Errorf("inspect %s: there is no such part; the parts are %v", name, part.Names)
	}
	return inspect(ctx, name, d.part)
}

// inspect asks a part that runs in node.
func inspect(ctx context.Context, name string, p part.Part) (json.RawMessage, error) {
	i, ok := p.(part.Inspector)
	if !ok {
		return nil, fmt.Errorf("inspect %s: it has nothing to show", name)
	}
	v, err := i.Inspect(ctx)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	return json.Marshal(v)
}
