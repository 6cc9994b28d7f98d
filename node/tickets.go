package node

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"trivet/cluster"
	"trivet/internal/pace"
)

// The keys of TLS session tickets are the same on all servers, so that a
// visitor resumes a session with any of them, and few, so that a key that was
// stolen opens the sessions of little more than a day (RFC 8446, C.4).
const (
	ticketLife = 12 * time.Hour // a key makes new tickets for so long
	ticketKeep = 3              // keys that are kept, with the one that makes new tickets
	ticketSize = 32             // bytes
	ticketLook = time.Minute    // how often it is looked whether a new key is due
)

// ticketKey is one key and when it was made, by the clock of the server that made it.
type ticketKey struct {
	Key []byte    `json:"key"`
	At  time.Time `json:"at"`
}

func freshTicket() []byte {
	key := make([]byte, ticketSize)
	_, _ = rand.Read(key) // never fails; see crypto/rand
	return key
}

// due reports whether the newest of keys has made tickets for long enough at
// now. One that was made in the far future, by a clock that was wrong, would
// never be; it is due at once.
func due(keys []ticketKey, now time.Time) bool {
	return len(keys) == 0 || now.Sub(keys[0].At).Abs() >= ticketLife
}

// renew returns keys with a new one in front, without those that are too many or too old.
func renew(keys []ticketKey, now time.Time, key []byte) []ticketKey {
	out := []ticketKey{{Key: key, At: now.UTC()}}
	for _, k := range keys {
		if len(out) < ticketKeep && now.Sub(k.At) < ticketKeep*ticketLife {
			out = append(out, k)
		}
	}
	return out
}

// ticketSecret writes keys as part.SecretTicketKeys is read.
func ticketSecret(keys []ticketKey) string {
	words := make([]string, len(keys))
	for i, k := range keys {
		words[i] = base64.StdEncoding.EncodeToString(k.Key)
	}
	return strings.Join(words, " ")
}

// rotateTickets makes a new key whenever one is due, until ctx ends.
func (n *Node) rotateTickets(ctx context.Context) {
	look := time.NewTimer(pace.Next(ticketLook))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if err := n.rotateDue(ctx, time.Now()); err != nil && ctx.Err() == nil {
			n.log.Warn("rotate session ticket keys", "err", err)
		}
		look.Reset(pace.Next(ticketLook))
	}
}

// rotateDue makes a new key if one is due. Only the holder of a role does, so
// that it is one clock that counts; who finds a key due first gets the role.
func (n *Node) rotateDue(ctx context.Context, now time.Time) error {
	n.mu.Lock()
	keys := n.agreed.Tickets
	n.mu.Unlock()
	if !due(keys, now) || !n.cluster.Quorum() {
		return nil
	}
	mine, err := n.cluster.Acquire(ctx, keyRotator, []byte(n.name))
	if err != nil || !mine {
		return err
	}
	return rotateAgreed(ctx, n.cluster, now)
}

// swapper is what rotateAgreed needs of the cluster.
type swapper interface {
	Get(ctx context.Context, key string) (cluster.Value, error)
	Swap(ctx context.Context, key string, prev int64, data []byte) (int64, error)
}

// rotateAgreed puts a new key before the agreed ones if they say that one is
// due; that another was faster is no error.
func rotateAgreed(ctx context.Context, c swapper, now time.Time) error {
	v, err := c.Get(ctx, keyTickets)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return err
	}
	var keys []ticketKey
	if err == nil {
		if err := json.Unmarshal(v.Data, &keys); err != nil {
			return fmt.Errorf("read session ticket keys: %w", err)
		}
	}
	if !due(keys, now) {
		return nil
	}
	data, err := json.Marshal(renew(keys, now, freshTicket()))
	if err != nil {
		return err
	}
	if _, err = c.Swap(ctx, keyTickets, v.Revision, data); errors.Is(err, cluster.ErrConflict) {
		return nil
	}
	return err
}
