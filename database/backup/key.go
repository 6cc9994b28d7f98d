package backup

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// NewKey makes the secret by which a site's backups are sealed: an age
// identity, one line that begins with AGE-SECRET-KEY-1. Whoever has it and a
// copy can read all that the database ever held; whoever has lost it has no
// backups.
func NewKey() (string, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make backup key: %w", err)
	}
	return id.String(), nil
}

// key seals and opens, and signs what is not secret but must be true.
type key struct {
	identity  *age.X25519Identity
	recipient string // the public half, which says by which key something was sealed
	mac       []byte
}

// parseKey reads an identity; lines that begin with # are passed over, as in age's own files.
func parseKey(text string) (key, error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, err := age.ParseX25519Identity(line)
		if err != nil {
			return key{}, errors.New("read backup key: this is no line AGE-SECRET-KEY-1…")
		}
		mac, err := hkdf.Key(sha256.New, []byte(id.String()), nil, "trivet backup: signature", sha256.Size)
		return key{id, id.Recipient().String(), mac}, err
	}
	return key{}, errors.New("read backup key: there is none")
}

// sign is what only a holder of the key can make of data.
func (k key) sign(data []byte) string {
	h := hmac.New(sha256.New, k.mac)
	_, _ = h.Write(data)
	return hex.EncodeToString(h.Sum(nil))
}

// signed reports whether mac is sign's of data.
func (k key) signed(data []byte, mac string) bool {
	return hmac.Equal([]byte(k.sign(data)), []byte(mac))
}

// WrongKeyError says that something was sealed by another key than the one at hand.
type WrongKeyError struct{ What, Sealed, Have string }

func (e WrongKeyError) Error() string {
	return fmt.Sprintf("%s was sealed by the key %s, and this one is %s", e.What, e.Sealed, e.Have)
}

// fits refuses what another key has sealed.
func (k key) fits(what, recipient string) error {
	if recipient != k.recipient {
		return WrongKeyError{what, recipient, k.recipient}
	}
	return nil
}

// window is how far compression looks back: more would cost memory at both ends.
const window = 1 << 20

// sealer compresses and encrypts; Close ends both and leaves w open.
type sealer struct {
	*zstd.Encoder
	outer io.WriteCloser
}

func (k key) seal(w io.Writer) (io.WriteCloser, error) {
	outer, err := age.Encrypt(w, k.identity.Recipient())
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	inner, err := zstd.NewWriter(outer, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return sealer{inner, outer}, nil
}

func (s sealer) Close() error { return errors.Join(s.Encoder.Close(), s.outer.Close()) }

// open reads what seal wrote. What was tampered with is an error, never other data.
func (k key) open(r io.Reader) (io.ReadCloser, error) {
	outer, err := age.Decrypt(r, k.identity)
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	inner, err := zstd.NewReader(outer, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(8*window))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return inner.IOReadCloser(), nil
}

// digest is the SHA-256 of data, in hex.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
