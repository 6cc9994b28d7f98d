package backup

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/part"
	"trivet/site"
)

// roleOf is a part.State as far as due looks at it.
type roleOf struct {
	last, failed, drill time.Time
	uuid, wrong         string
}

func (r roleOf) state() part.State {
	s := site.Default()
	role := part.BackupRole{Failed: part.BackupNote{At: r.failed}, Drill: part.BackupDrill{At: r.drill, Error: r.wrong}}
	if !r.last.IsZero() {
		role.Last = part.BackupNote{ID: "x", At: r.last, UUID: r.uuid}
	}
	return part.State{Site: &s, Database: part.DatabaseRole{UUID: history}, Backup: role}
}

// raw makes an event with a checksum.
func raw(kind byte, at uint32, body []byte) []byte {
	e := make([]byte, eventHead, eventHead+len(body)+checksum)
	binary.LittleEndian.PutUint32(e, at)
	e[4] = kind
	binary.LittleEndian.PutUint32(e[5:], 1)
	binary.LittleEndian.PutUint32(e[9:], uint32(eventHead+len(body)+checksum))
	e = append(e, body...)
	return binary.LittleEndian.AppendUint32(e, crc32.ChecksumIEEE(e))
}

func formatEvent() []byte {
	body := make([]byte, 2+50+4+1+165+1)
	body[0] = 4
	copy(body[2:], "10.11.19-MariaDB")
	body[56] = eventHead
	body[len(body)-1] = 1 // CRC-32
	return raw(eventFormat, 100, body)
}

func gtidEvent(domain uint32, seq uint64, at uint32, flags byte) []byte {
	body := binary.LittleEndian.AppendUint64(nil, seq)
	body = binary.LittleEndian.AppendUint32(body, domain)
	return raw(eventGTID, at, append(body, flags, 0, 0, 0, 0, 0, 0))
}

func listEvent(seq uint64) []byte {
	body := binary.LittleEndian.AppendUint32(nil, 1)
	body = binary.LittleEndian.AppendUint32(body, Domain)
	body = binary.LittleEndian.AppendUint32(body, 1)
	return raw(eventGTIDList, 100, binary.LittleEndian.AppendUint64(body, seq))
}

func queryEvent(text string) []byte {
	body := make([]byte, 13)
	body[8] = 3
	return raw(eventQuery, 100, append(body, "app\x00"+text...))
}

func xidEvent() []byte { return raw(eventXID, 100, make([]byte, 8)) }

// trx is a transaction of row events, as InnoDB's are.
func trx(seq uint64, at uint32) []byte { return trxOf(seq, at, 25, "rows") }

// trxOf is one whose rows are in a table of that number.
func trxOf(seq uint64, at uint32, table byte, rows string) []byte {
	insert := append([]byte{table, 0, 0, 0, 0, 0, 1, 0, 2, 3}, rows...)
	return join(gtidEvent(Domain, seq, at, 2), raw(19, at, []byte("table")), raw(23, at, insert), xidEvent())
}

func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// logDir is a data folder with these files of the binary log.
func logDir(t *testing.T, files ...[]byte) string {
	t.Helper()
	dir, index := t.TempDir(), ""
	for i, data := range files {
		name := "bin.00000" + string(rune('1'+i))
		index += "./" + name + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin.index"), []byte(index), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func file(before uint64, events ...[]byte) []byte {
	return join(append([][]byte{magic, formatEvent(), listEvent(before)}, events...)...)
}

// follow reads what tail finds after last.
func follow(dir string, last uint64) ([]uint64, error) {
	tl := &tail{dir: dir, base: "bin"}
	defer tl.close()
	if err := tl.seek(last); err != nil {
		return nil, err
	}
	var got []uint64
	for {
		err := tl.scan(func(g group) bool { got = append(got, g.seq); return true })
		if err != nil {
			return got, err
		}
		if next, err := tl.advance(); err != nil || !next {
			return got, err
		}
	}
}

// TestTail follows the log through what it may hold: other domains, statements
// that stand alone, half of a transaction at the end, several files, gaps.
func TestTail(t *testing.T) {
	ddl := join(gtidEvent(Domain, 3, 100, gtidStandalone), queryEvent("CREATE TABLE t (id INT)"))
	plain := join(gtidEvent(Domain, 4, 100, 0), queryEvent("INSERT"), queryEvent("COMMIT"))
	local := join(gtidEvent(0, 7, 100, 2), xidEvent())
	last := trx(5, 100)
	flipped := trx(2, 100)
	flipped[len(flipped)-1] ^= 1
	tests := []struct {
		name  string
		files [][]byte
		after uint64
		want  []uint64
		gap   string
		err   string
	}{
		{name: "all kinds", files: [][]byte{file(0, trx(1, 100), trx(2, 100), ddl, local, plain, last)}, want: []uint64{1, 2, 3, 4, 5}},
		{name: "from amid", files: [][]byte{file(0, trx(1, 100), trx(2, 100), ddl)}, after: 2, want: []uint64{3}},
		{name: "half of the last", files: [][]byte{file(0, trx(1, 100), last[:len(last)-9])}, want: []uint64{1}},
		{name: "the last without its end", files: [][]byte{file(0, trx(1, 100), gtidEvent(Domain, 2, 100, 2))}, want: []uint64{1}},
		{name: "several files", files: [][]byte{file(0, trx(1, 100)), file(1, trx(2, 100), trx(3, 100)), file(3), file(3, trx(4, 100))}, after: 1, want: []uint64{2, 3, 4}},
		{name: "a file that mariadbd died in", files: [][]byte{file(0, trx(1, 100), trx(2, 100)[:70]), file(1, trx(2, 100))}, want: []uint64{1, 2}},
		{name: "nothing new", files: [][]byte{file(0, trx(1, 100))}, after: 1},
		{name: "behind the archive", files: [][]byte{file(0, trx(1, 100))}, after: 5},
		{name: "the beginning is gone", files: [][]byte{file(7, trx(8, 100))}, after: 5, gap: "77-1-6"},
		{name: "it lacks the archive's last", files: [][]byte{file(3, trx(4, 100), trx(8, 100))}, after: 5, gap: "77-1-5"},
		{name: "a flipped bit", files: [][]byte{file(0, trx(1, 100), flipped)}, want: []uint64{1}, err: "wrong checksum"},
	}
	for _, tt := range tests {
		got, err := follow(logDir(t, tt.files...), tt.after)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		var gap GapError
		switch {
		case tt.gap != "":
			if !errors.As(err, &gap) || gap.Missing != tt.gap {
				t.Errorf("%s: %v, want a gap at %s", tt.name, err, tt.gap)
			}
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestRewritten: a cluster that was started without the archive's last
// transaction has given its GTID to another; the same one is known whatever
// the number of its table.
func TestRewritten(t *testing.T) {
	d := newReader(strings.NewReader(string(trxOf(2, 100, 25, "one"))))
	d.crc = true
	g, _, err := d.group()
	if err != nil {
		t.Fatal(err)
	}
	for rows, want := range map[string]error{"one": nil, "two": errRewritten} {
		// The file that begins after it does not show it: the one before does.
		tl := &tail{dir: logDir(t, file(0, trx(1, 100), trxOf(2, 100, 26, rows)), file(2, trx(3, 100))), base: "bin", mark: g.sum}
		if err := tl.seek(2); err != nil {
			t.Fatal(err)
		}
		err := tl.scan(func(group) bool { return true })
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", rows, err, want)
		}
		tl.close()
	}
}

// FuzzReader: whatever is in a file, reading it ends, and does not take more memory than the file.
func FuzzReader(f *testing.F) {
	f.Add(file(0, trx(1, 100), gtidEvent(Domain, 2, 100, gtidStandalone), queryEvent("DROP TABLE t")))
	f.Add(file(3)[:20])
	f.Fuzz(func(_ *testing.T, data []byte) {
		d := newReader(strings.NewReader(string(data)))
		if d.start() != nil {
			return
		}
		for {
			if _, _, err := d.group(); err != nil {
				return
			}
		}
	})
}
