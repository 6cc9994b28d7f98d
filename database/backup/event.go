package backup

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The binary log's format: MariaDB's documentation of the replication
// protocol, and sql/log_event.h. A file is four magic bytes and events; an
// event is a head of 19 bytes (time 4, type 1, server 4, length 4, next
// position 4, flags 2), a body, and a CRC-32 if the file's first event says so.
const (
	eventHead = 19
	checksum  = 4

	eventQuery           = 2
	eventStop            = 3
	eventRotate          = 4
	eventFormat          = 15
	eventXID             = 16
	eventXAPrepare       = 38
	eventGTID            = 162
	eventGTIDList        = 163
	eventStartEncryption = 164
	eventQueryCompressed = 165

	flagInUse      = 1 // of a format event: the file has not been closed
	gtidStandalone = 1 // of a GTID event: no COMMIT follows, but one statement
)

var magic = []byte("\xfebin")

// errPartial says that an event is not wholly there (yet).
var errPartial = errors.New("the last event is not complete")

// event is one event as it stands in the file, its checksum included.
type event struct {
	raw []byte
	crc bool
}

func (e event) kind() byte  { return e.raw[4] }
func (e event) time() int64 { return int64(binary.LittleEndian.Uint32(e.raw)) }

func (e event) body() []byte {
	if e.crc {
		return e.raw[eventHead : len(e.raw)-checksum]
	}
	return e.raw[eventHead:]
}

// reader reads a file's events one after the other.
type reader struct {
	r      *bufio.Reader
	crc    bool
	format []byte // the newest format event, as if its file had been closed
}

func newReader(r io.Reader) *reader { return &reader{r: bufio.NewReaderSize(r, 64<<10)} }

// start reads the magic bytes and the first event, which says how the others are written.
func (d *reader) start() error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(d.r, head); err != nil {
		return errPartial
	}
	if !bytes.Equal(head, magic) {
		return errors.New("it is no binary log")
	}
	e, err := d.next()
	if err == nil && e.kind() != eventFormat {
		err = errors.New("it does not begin with a format event")
	}
	return err
}

// next reads one event: io.EOF at the end, errPartial if there is half of one.
func (d *reader) next() (event, error) {
	head, err := d.r.Peek(eventHead)
	if len(head) == 0 && errors.Is(err, io.EOF) {
		return event{}, io.EOF
	}
	if err != nil {
		return event{}, partial(err)
	}
	size := binary.LittleEndian.Uint32(head[9:])
	if size < eventHead || size > 2<<30 {
		return event{}, fmt.Errorf("an event of %d bytes: the binary log is damaged", size)
	}
	raw, err := readN(d.r, int64(size))
	if err != nil {
		return event{}, partial(err)
	}
	e := event{raw: raw, crc: d.crc}
	if e.kind() == eventFormat {
		if err := d.use(&e); err != nil {
			return e, err
		}
	}
	if e.crc && !e.intact() {
		return e, fmt.Errorf("an event of type %d has a wrong checksum", e.kind())
	}
	return e, nil
}

// readN reads n bytes without trusting n for more memory than there are bytes.
func readN(r io.Reader, n int64) ([]byte, error) {
	if n <= 1<<20 {
		buf := make([]byte, n)
		_, err := io.ReadFull(r, buf)
		return buf, err
	}
	var buf bytes.Buffer
	if m, err := io.CopyN(&buf, r, n); err != nil || m < n {
		return nil, io.ErrUnexpectedEOF
	}
	return buf.Bytes(), nil
}

func partial(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errPartial
	}
	return err
}

// use takes a format event's word for whether events have checksums; its own
// is made without the flag that the file is in use.
func (d *reader) use(e *event) error {
	if len(e.raw) < eventHead+2+50+4+1+1+checksum {
		return errors.New("the format event is too short")
	}
	switch algorithm := e.raw[len(e.raw)-checksum-1]; algorithm {
	case 0:
		d.crc, e.crc = false, false
	case 1:
		d.crc, e.crc = true, true
	default:
		return fmt.Errorf("checksum algorithm %d is not known", algorithm)
	}
	e.raw[17] &^= flagInUse
	d.format = bytes.Clone(e.raw)
	return nil
}

func (e event) intact() bool {
	n := len(e.raw) - checksum
	return n >= eventHead && crc32.ChecksumIEEE(e.raw[:n]) == binary.LittleEndian.Uint32(e.raw[n:])
}

// gtid reads a GTID event: sequence 8, domain 4, flags 1.
func (e event) gtid() (g gtid, standalone bool, err error) {
	b := e.body()
	if len(b) < 13 {
		return g, false, errors.New("a GTID event is too short")
	}
	g = gtid{binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(e.raw[5:]), binary.LittleEndian.Uint64(b)}
	return g, b[12]&gtidStandalone != 0, nil
}

// list reads a GTID list: what the log held before this file. It returns the
// replicated history's sequence, 0 if there is none.
func (e event) list() (uint64, error) {
	b := e.body()
	if len(b) < 4 {
		return 0, errors.New("a GTID list is too short")
	}
	n := int(binary.LittleEndian.Uint32(b) & (1<<28 - 1))
	b = b[4:]
	var last uint64
	for range n {
		if len(b) < 16 {
			return 0, errors.New("a GTID list is too short")
		}
		if binary.LittleEndian.Uint32(b) == Domain {
			last = max(last, binary.LittleEndian.Uint64(b[8:]))
		}
		b = b[16:]
	}
	return last, nil
}

// statement is the text of a query event, which follows its head of 13 bytes,
// the status variables, and the database's name with a NUL.
func (e event) statement() string {
	b := e.body()
	if len(b) < 13 {
		return ""
	}
	skip := 13 + int(binary.LittleEndian.Uint16(b[11:])) + int(b[8]) + 1
	if skip > len(b) {
		return ""
	}
	return string(b[skip:])
}

// ends reports whether e is the last event of a transaction.
func (e event) ends(standalone bool) bool {
	switch e.kind() {
	case eventXID, eventXAPrepare:
		return true
	case eventQuery, eventQueryCompressed:
		if standalone {
			return true
		}
		s := e.statement()
		return s == "COMMIT" || s == "ROLLBACK"
	}
	return false
}

// rows are the row images in e, if it is a row event: what a transaction did is
// the same on all servers, while the events about it differ in their positions,
// numbers of tables, and where mariadbd cut them. Compressed ones are left out.
func (e event) rows() []byte {
	var skip int
	switch kind := e.kind(); {
	case kind >= 23 && kind <= 25: // the kinds of MariaDB: insert, update, delete
		skip = 8
	case kind >= 30 && kind <= 32: // those of MySQL 5.6
		skip = 10
	default:
		return nil
	}
	b := e.body()
	if len(b) <= skip || b[skip] > 250 {
		return nil
	}
	columns := (int(b[skip]) + 7) / 8
	skip += 1 + columns
	if e.kind() == 24 || e.kind() == 31 {
		skip += columns
	}
	if skip > len(b) {
		return nil
	}
	return b[skip:]
}

// within reports whether an event of this type can be inside a transaction.
func (e event) within() bool {
	switch e.kind() {
	case eventStop, eventRotate, eventFormat, eventGTID, eventGTIDList:
		return false
	}
	return true
}
