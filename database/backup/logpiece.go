package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"time"
)

// logPiece is a stretch of the binary log in the archive, as its name says it:
// all transactions after prev, up to last.
type logPiece struct {
	chain      string // that it belongs to: Manifest.Log
	prev, last uint64
	from, to   int64 // Unix seconds of the first and the last commit
}

var logForm = regexp.MustCompile(`^log/([0-9a-f-]{36}\.[0-9]{8}-[0-9]{6})/([0-9]{20})-([0-9]{20})-([0-9]{1,12})-([0-9]{1,12})$`)

func (p logPiece) name() string {
	return fmt.Sprintf("%s%s/%020d-%020d-%d-%d", logPrefix, p.chain, p.prev, p.last, p.from, p.to)
}

func (p logPiece) String() string {
	return fmt.Sprintf("piece %s…%s of the binary log", position(p.prev+1), position(p.last))
}

// parseLogName reads what name writes.
func parseLogName(name string) (logPiece, bool) {
	m := logForm.FindStringSubmatch(name)
	if m == nil {
		return logPiece{}, false
	}
	p := logPiece{chain: m[1]}
	var errs [4]error
	p.prev, errs[0] = strconv.ParseUint(m[2], 10, 64)
	p.last, errs[1] = strconv.ParseUint(m[3], 10, 64)
	p.from, errs[2] = strconv.ParseInt(m[4], 10, 64)
	p.to, errs[3] = strconv.ParseInt(m[5], 10, 64)
	return p, errors.Join(errs[:]...) == nil && p.prev < p.last
}

// logHead is the first line of a piece of the log; what follows is sealed: a
// format event and the transactions as they stood in the log. The MAC is made
// with the backup key and holds the digest of what follows.
type logHead struct {
	Version   int    `json:"version"`
	Name      string `json:"name"`
	Server    string `json:"server"` // whose log it was
	Groups    int    `json:"groups"` // transactions
	Recipient string `json:"recipient"`
	Mark      uint64 `json:"mark"` // what the last transaction did; see event.rows
	Size      int64  `json:"size"` // of what follows
	SHA256    string `json:"sha256"`
	MAC       string `json:"mac"`
}

const logHeadLimit = 4 << 10

func (h logHead) encode(k key) ([]byte, error) {
	h.Version, h.Recipient, h.MAC = manifestVersion, k.recipient, ""
	plain, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	h.MAC = k.sign(plain)
	signed, err := json.Marshal(h)
	return append(signed, '\n'), err
}

// readLogHead reads the head of the piece p, and makes sure that it is p's.
func readLogHead(r *bufio.Reader, p logPiece, k key) (logHead, error) {
	var h logHead
	line, err := r.ReadSlice('\n')
	if err != nil || len(line) > logHeadLimit || json.Unmarshal(line, &h) != nil || h.Version != manifestVersion {
		return h, errors.New("its head is damaged")
	}
	if err := k.fits(p.String(), h.Recipient); err != nil {
		return h, err
	}
	mac := h.MAC
	h.MAC = ""
	plain, err := json.Marshal(h)
	if err != nil {
		return h, err
	}
	if !k.signed(plain, mac) || h.Name != p.name() {
		return h, errForged
	}
	return h, nil
}

// checkLog reads a whole piece and makes sure that it is what was sealed.
func checkLog(r io.Reader, p logPiece, k key) error {
	b := bufio.NewReader(r)
	h, err := readLogHead(b, p, k)
	if err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(b, h.Size+1))
	if err != nil {
		return err
	}
	if n != h.Size || hex.EncodeToString(sum.Sum(nil)) != h.SHA256 {
		return errDamaged
	}
	return nil
}

var errDamaged = errors.New("its digest is not the one that was signed")

// openLog opens what is in a piece that checkLog found good.
func openLog(r io.Reader, p logPiece, k key) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	if _, err := readLogHead(b, p, k); err != nil {
		return nil, err
	}
	return k.open(b)
}

// stretch is what of a file of the binary log is to become a piece.
type stretch struct {
	piece    logPiece
	from, to int64 // in the file
	groups   int
	mark     uint64    // of the last one
	begun    time.Time // when its first transaction was seen
}

// seal makes a piece of s, in a file of the folder tmp that the caller removes.
func (s stretch) seal(k key, server, tmp string, format []byte, file io.ReaderAt) (object, *os.File, error) {
	out, err := os.CreateTemp(tmp, "log-")
	if err != nil {
		return object{}, nil, err
	}
	body := sha256.New()
	count := &counter{}
	err = func() error {
		w, err := k.seal(io.MultiWriter(out, body, count))
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, io.MultiReader(bytes.NewReader(format), io.NewSectionReader(file, s.from, s.to-s.from))); err != nil {
			return err
		}
		return w.Close()
	}()
	if err != nil {
		drop(out)
		return object{}, nil, fmt.Errorf("seal %v: %w", s.piece, err)
	}
	head, err := logHead{
		Name: s.piece.name(), Server: server, Groups: s.groups, Mark: s.mark, Size: count.n, SHA256: hex.EncodeToString(body.Sum(nil)),
	}.encode(k)
	if err != nil {
		drop(out)
		return object{}, nil, err
	}
	o := object{name: s.piece.name(), size: int64(len(head)) + count.n, open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(head), io.NewSectionReader(out, 0, count.n))), nil
	}}
	o.sha256, err = sumOf(o)
	return o, out, err
}

func sumOf(o object) (string, error) {
	r, err := o.open()
	if err != nil {
		return "", err
	}
	defer func() { _ = r.Close() }()
	h := sha256.New()
	_, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

// drop closes and removes a temporary file.
func drop(f *os.File) {
	_ = f.Close()
	_ = os.Remove(f.Name())
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// fileObject is an open file as an object.
func fileObject(name string, f *os.File) (object, error) {
	info, err := f.Stat()
	if err != nil {
		return object{}, err
	}
	o := object{name: name, size: info.Size(), open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, info.Size())), nil
	}}
	o.sha256, err = sumOf(o)
	return o, err
}
