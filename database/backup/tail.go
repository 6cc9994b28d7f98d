package backup

import (
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// group is a transaction in a file of the binary log.
type group struct {
	gtid
	time     int64  // of its commit, Unix seconds, by the writer's clock
	from, to int64  // where it lies in the file
	sum      uint64 // of what it did: the same on all servers
}

// GapError says that the transaction after one that is known is nowhere to be had.
type GapError struct {
	Where   string
	Missing string // GTID of the first one
	Next    string // GTID of the first one that is there again; empty: none is
}

func (e GapError) Error() string {
	if e.Next == "" {
		return fmt.Sprintf("%s: transaction %s and what came after it is missing", e.Where, e.Missing)
	}
	return fmt.Sprintf("%s: from transaction %s on something is missing; it goes on with %s", e.Where, e.Missing, e.Next)
}

// tail follows the binary log in a data folder from one transaction on.
type tail struct {
	dir, base string

	file *os.File
	name string
	at   int64  // what begins here has not been returned yet
	seen uint64 // sequence of the last transaction before that
	from uint64 // those up to here are passed over
	mark uint64 // what from did, if that is known: else 0
	dec  reader // of which only crc and format are used
}

// close lets go of the file.
func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}

// files lists the log's files, the oldest first.
func (t *tail) files() ([]string, error) {
	data, err := os.ReadFile(filepath.Join(t.dir, t.base+".index"))
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			names = append(names, filepath.Base(line))
		}
	}
	return names, nil
}

// seek finds the file in which the transaction after last is, or will be.
func (t *tail) seek(last uint64) error {
	t.close()
	names, err := t.files()
	if err != nil {
		return err
	}
	oldest := uint64(0)
	for i, name := range slices.Backward(names) {
		before, err := t.open(name)
		if errors.Is(err, errPartial) {
			continue // it has just been made
		}
		if err != nil {
			return err
		}
		// Of two files that would do, the one that holds last itself shows what it did.
		if before < last || before == last && (i == 0 || last == 0) {
			t.from = last
			return nil
		}
		oldest = before
	}
	t.close()
	return GapError{Where: "binary log of this server", Missing: position(last + 1), Next: position(oldest + 1)}
}

// open begins with a file; it returns the last transaction before it.
func (t *tail) open(name string) (before uint64, err error) {
	f, err := os.Open(filepath.Join(t.dir, name))
	if err != nil {
		return 0, err
	}
	d := newReader(f)
	at := int64(len(magic))
	if err := d.start(); err != nil {
		_ = f.Close()
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	at += int64(len(d.format))
	e, err := d.next()
	if err == io.EOF {
		err = errPartial
	}
	if err == nil && e.kind() == eventStartEncryption {
		err = errors.New("it is encrypted by mariadbd, which an archive cannot read")
	}
	if err == nil && e.kind() == eventGTIDList {
		before, err = e.list()
		at += int64(len(e.raw))
	}
	if err != nil {
		_ = f.Close()
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	t.close()
	t.file, t.name, t.at, t.seen, t.dec = f, name, at, before, *d
	return before, nil
}

// scan hands each transaction that is wholly there to take, until that says
// enough. What it said no to comes again.
func (t *tail) scan(take func(group) bool) error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() <= t.at {
		return nil
	}
	d := newReader(io.NewSectionReader(t.file, t.at, info.Size()-t.at))
	d.crc, d.format = t.dec.crc, t.dec.format
	for {
		g, size, err := d.group()
		if err == io.EOF || errors.Is(err, errPartial) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s after byte %d: %w", t.name, t.at, err)
		}
		g.from, g.to = t.at+g.from, t.at+size
		if g.domain == Domain && g.seq == t.from && t.mark != 0 && g.sum != t.mark {
			return fmt.Errorf("transaction %v: %w", g.gtid, errRewritten)
		}
		if g.domain == Domain && g.seq > t.from {
			if t.seen < t.from {
				return GapError{Where: "binary log of this server", Missing: position(t.from), Next: g.String()}
			}
			if !take(g) {
				return nil
			}
		}
		if g.domain == Domain {
			t.seen = max(t.seen, g.seq)
		}
		t.at = g.to
	}
}

// group reads to the end of the next transaction. It returns how many bytes
// that took; from is where, of these, the transaction begins.
func (d *reader) group() (g group, size int64, err error) {
	inside, standalone := false, false
	sum := crc64.New(crcTable)
	for {
		e, err := d.next()
		if err != nil {
			if inside && err == io.EOF {
				err = errPartial
			}
			return g, size, err
		}
		switch {
		case e.kind() == eventGTID:
			if g.gtid, standalone, err = e.gtid(); err != nil {
				return g, size, err
			}
			inside, g.from, g.time = true, size, e.time()
			sum.Reset()
		case inside && !e.within():
			inside = false // mariadbd ended amid it
		}
		size += int64(len(e.raw))
		_, _ = sum.Write(e.rows())
		if e.kind() == eventQuery {
			_, _ = io.WriteString(sum, e.statement())
		}
		g.sum = sum.Sum64() | 1 // never 0
		if inside && e.ends(standalone) {
			return g, size, nil
		}
	}
}

// advance goes on to the next file, if the present one has ended. It reports
// whether it did, or an error if what follows does not fit.
func (t *tail) advance() (bool, error) {
	names, err := t.files()
	if err != nil {
		return false, err
	}
	i := slices.Index(names, t.name)
	if i < 0 {
		return false, errReplaced
	}
	if i == len(names)-1 {
		return false, nil
	}
	seen := max(t.seen, t.from)
	before, err := t.open(names[i+1])
	if errors.Is(err, errPartial) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if before > seen {
		return false, GapError{Where: "binary log of this server", Missing: position(seen + 1), Next: position(before + 1)}
	}
	return true, nil
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// errRewritten says that the archive's last transaction is not the one that the
// cluster has under its GTID: the cluster was started from a server that lacked it.
var errRewritten = errors.New("the archive holds another one under this GTID")

// errReplaced says that mariadbd has begun another log: it was given a full copy.
var errReplaced = errors.New("the binary log was replaced")
