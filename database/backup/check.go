package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
)

// copyChecked copies r to w, and refuses what is not of the size and digest of o.
func copyChecked(w io.Writer, r io.Reader, o object) error {
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(r, o.size+1))
	if err != nil {
		return err
	}
	if n != o.size {
		return fmt.Errorf("%s has not %d bytes", o.name, o.size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != o.sha256 {
		return fmt.Errorf("%s arrived damaged: its digest is %s, not %s", o.name, got, o.sha256)
	}
	return nil
}
