package ticket

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Kept is how many keys are in force: the newest seals, the others still open.
const Kept = 3

// Every is how often a new key should come. A ticket is good for at least
// Kept-1 times as long; with a key that is gone it is only a full handshake.
const Every = 12 * time.Hour

// Keys reads keys as they are stored: 32 bytes each, base64, separated by
// spaces, the newest first; one to Kept of them.
func Keys(text string) ([][32]byte, error) {
	fields := strings.Fields(text)
	if len(fields) == 0 || len(fields) > Kept {
		return nil, fmt.Errorf("read ticket keys: got %d, want 1 to %d", len(fields), Kept)
	}
	keys := make([][32]byte, len(fields))
	for i, f := range fields {
		b, err := base64.StdEncoding.DecodeString(f)
		if err != nil || len(b) != len(keys[i]) {
			return nil, fmt.Errorf("read ticket keys: %w", errKey)
		}
		copy(keys[i][:], b)
	}
	return keys, nil
}

var errKey = errors.New("a key is not 32 bytes in base64")

// Fresh is the text of one new key.
func Fresh() string {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

// Rotate is text with a new key before its newest, and without those beyond
// Kept. Text that Keys refuses is left behind whole.
func Rotate(text string) string {
	fields := strings.Fields(text)
	if _, err := Keys(text); err != nil {
		fields = nil
	}
	fields = append([]string{Fresh()}, fields...)
	return strings.Join(fields[:min(len(fields), Kept)], " ")
}
