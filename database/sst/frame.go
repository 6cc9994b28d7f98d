package sst

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// header is the first frame that the donor sends.
type header struct {
	Version int    `json:"version"`
	Full    bool   `json:"full"`   // a copy follows; otherwise mariadbd sends the missing changes itself
	GTID    string `json:"gtid"`   // UUID:SEQNO of the donor when it was asked
	Domain  string `json:"domain"` // wsrep_gtid_domain_id
	Size    int64  `json:"size"`   // about how many bytes a full copy will be; 0: not known
}

const (
	version  = 1
	maxFrame = 256 << 10
)

// frames cuts what is written into frames: four bytes of length, big-endian,
// then that many bytes. A frame of length 0 is the end mark.
type frames struct{ w io.Writer }

func (f frames) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		chunk := p[n:min(len(p), n+maxFrame)]
		if err := f.frame(chunk); err != nil {
			return n, err
		}
		n += len(chunk)
	}
	return n, nil
}

func (f frames) frame(p []byte) error {
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(p)))
	if _, err := f.w.Write(size[:]); err != nil {
		return err
	}
	_, err := f.w.Write(p)
	return err
}

func (f frames) end() error { return f.frame(nil) }

func (f frames) header(h header) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return f.frame(data)
}

// unframed reads what frames wrote; io.EOF comes after the end mark only.
type unframed struct {
	r    io.Reader
	left int
	done bool
}

func (u *unframed) Read(p []byte) (int, error) {
	if u.done {
		return 0, io.EOF
	}
	if u.left == 0 {
		if err := u.next(); err != nil {
			return 0, err
		}
		if u.left == 0 {
			u.done = true
			return 0, io.EOF
		}
	}
	n, err := u.r.Read(p[:min(len(p), u.left)])
	u.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (u *unframed) next() error {
	var size [4]byte
	if _, err := io.ReadFull(u.r, size[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes", n)
	}
	u.left = int(n)
	return nil
}

func (u *unframed) header() (header, error) {
	var h header
	if err := u.next(); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	data := make([]byte, u.left)
	if _, err := io.ReadFull(u.r, data); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	u.left = 0
	if err := json.Unmarshal(data, &h); err != nil {
		return h, fmt.Errorf("read header: %w", err)
	}
	if h.Version != version {
		return h, fmt.Errorf("read header: version %d is not %d: finish the upgrade of all servers", h.Version, version)
	}
	return h, nil
}
