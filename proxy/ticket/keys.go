package ticket

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Kept is how many keys are in force: the newest seals, the others still open.
const Kept = 3

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
