package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// records protects what a TLS 1.3 connection carries after its handshake (RFC
// 8446, 5.2), with AES-128-GCM only. crypto/tls makes the handshake; from then
// on the loop, which has no goroutine for each connection, reads and writes the
// records itself, with the secrets of the key log.
type records struct {
	in, out half
	part    []byte // of a record that has not come whole
}

// half is one direction.
type half struct {
	aead  cipher.AEAD
	iv    [12]byte
	nonce [12]byte
	seq   uint64
}

// Content types, and the lengths of a record's head and of its seal.
const (
	typeAlert       = 21
	typeHandshake   = 22
	typeApplication = 23

	headLength = 5
	sealLength = 16
	maxPlain   = 16 << 10
)

// keyLog takes the lines of one handshake.
type keyLog struct{ bytes.Buffer }

// secret returns the one with the label of the key log's format.
func (k *keyLog) secret(label string) ([]byte, error) {
	for line := range bytes.Lines(k.Bytes()) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == label {
			return hex.DecodeString(string(f[2]))
		}
	}
	return nil, fmt.Errorf("the handshake has left no %s", label)
}

// newRecords takes over after a handshake.
func newRecords(state tls.ConnectionState, k *keyLog, isClient bool) (*records, error) {
	if state.Version != tls.VersionTLS13 || state.CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		return nil, fmt.Errorf("the handshake ended with version %#x and suite %#x, want TLS 1.3 and AES-128-GCM", state.Version, state.CipherSuite)
	}
	r := &records{}
	sides := []*half{&r.out, &r.in}
	if !isClient {
		sides = []*half{&r.in, &r.out}
	}
	for i, label := range []string{"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} {
		secret, err := k.secret(label)
		if err != nil {
			return nil, err
		}
		if err := sides[i].set(secret); err != nil {
			return nil, fmt.Errorf("derive a key: %w", err)
		}
	}
	return r, nil
}

func (h *half) set(secret []byte) error {
	key, err := expand(secret, "key", 16)
	if err != nil {
		return err
	}
	iv, err := expand(secret, "iv", len(h.iv))
	if err != nil {
		return err
	}
	copy(h.iv[:], iv)
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	h.aead, err = cipher.NewGCM(block)
	return err
}

// expand is HKDF-Expand-Label without a context (RFC 8446, 7.1).
func expand(secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	return hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
}

// number is the nonce of the next record.
func (h *half) number() []byte {
	h.nonce = h.iv
	binary.BigEndian.PutUint64(h.nonce[4:], binary.BigEndian.Uint64(h.iv[4:])^h.seq)
	h.seq++
	return h.nonce[:]
}

// seal appends p to dst as records.
func (r *records) seal(dst, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), maxPlain)
		size := n + 1 + sealLength
		at := len(dst)
		dst = append(dst, typeApplication, 3, 3, byte(size>>8), byte(size))
		dst = append(append(dst, p[:n]...), typeApplication)
		head, plain := dst[at:at+headLength], dst[at+headLength:]
		dst = r.out.aead.Seal(dst[:at+headLength], r.out.number(), plain, head)
		p = p[n:]
	}
	return dst
}

// open takes what came and hands out what it carries; p is overwritten.
func (r *records) open(p []byte, take func([]byte) error) error {
	if len(r.part) > 0 {
		r.part = append(r.part, p...)
		p = r.part
	}
	for len(p) >= headLength {
		end := headLength + int(p[3])<<8 + int(p[4])
		if len(p) < end {
			break
		}
		if err := r.one(p[:end], take); err != nil {
			return err
		}
		p = p[end:]
	}
	r.part = append(r.part[:0], p...)
	return nil
}

func (r *records) one(record []byte, take func([]byte) error) error {
	if record[0] != typeApplication {
		return fmt.Errorf("a record of type %d after the handshake", record[0])
	}
	plain, err := r.in.aead.Open(record[headLength:headLength], r.in.number(), record[headLength:], record[:headLength])
	if err != nil {
		return fmt.Errorf("open a record: %w", err)
	}
	plain = bytes.TrimRight(plain, "\x00")
	if len(plain) == 0 {
		return errors.New("a record without a type")
	}
	switch kind := plain[len(plain)-1]; kind {
	case typeApplication:
		return take(plain[:len(plain)-1])
	case typeHandshake: // a session ticket
		return nil
	case typeAlert:
		return errClosed
	default:
		return fmt.Errorf("a record of inner type %d", kind)
	}
}
