package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Build names the binary at path by its content, as the file in a server's
// folder of binaries is called: 16 hex digits of its SHA-256. Neither its path
// nor its time or inode would say which binary a process runs: the same one may
// be copied, and another put in its place.
func Build(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("name binary: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("name binary: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}
