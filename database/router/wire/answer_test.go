package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// follow gives packets to a Reply as they are cut out of a stream, and returns how many it took.
func follow(a *Reply, packets []string) (n int, err error) {
	for _, p := range packets {
		if a.Ended() {
			return n, nil
		}
		n++
		seen := p
		if len(p) > 0 && !a.Whole(len(p), p[0]) {
			seen = p[:1]
		}
		if err := a.Next(len(p), []byte(seen)); err != nil {
			return n, err
		}
	}
	return n, nil
}

func TestReply(t *testing.T) {
	const (
		ok, more, inTransaction = "\x00\x01\x00\x02\x00\x00\x00", "\x00\x00\x00\x0a\x00\x00\x00", "\x00\x01\x00\x01\x00\x00\x00"
		failed                  = "\xff\x16\x04#3D000No"
		eof, eofMore, eofCursor = "\xfe\x00\x00\x02\x00", "\xfe\x00\x00\x0a\x00", "\xfe\x00\x00\x42\x00"
		last, lastMore          = "\xfe\x00\x00\x02\x00\x00\x00", "\xfe\x00\x00\x0a\x00\x00\x00"
		def, row                = "\x03def", "\x011"
	)
	long := strings.Repeat("x", MaxPayload)
	for _, c := range []struct {
		name      string
		command   Command
		deprecate bool
		packets   []string
		status    uint16
		code      uint16
	}{
		{"ok", Query, false, []string{ok}, 2, 0},
		{"in a transaction", Query, false, []string{inTransaction}, 1, 0},
		{"error", Query, false, []string{failed}, 0, 1046},
		{"result", Query, false, []string{"\x01", def, eof, row, row, eof}, 2, 0},
		{"result, no eof", Query, true, []string{"\x02", def, def, row, row, last}, 2, 0},
		{"no rows", Query, false, []string{"\x01", def, eof, eof}, 2, 0},
		{"error in rows", Query, false, []string{"\x01", def, eof, row, failed}, 2, 1046},
		{"several", Query, false, []string{"\x01", def, eof, row, eofMore, more, "\x01", def, eof, eofMore, ok}, 2, 0},
		{"several, no eof", Query, true, []string{"\x01", def, row, lastMore, more, "\x01", def, last}, 2, 0},
		{"error after a result", Query, true, []string{"\x01", def, row, lastMore, failed}, 10, 1046},
		{"binary rows", StmtExecute, false, []string{"\x01", def, eof, "\x00\x001", "\x00\x00\xfe", eof}, 2, 0},
		{"cursor", StmtExecute, false, []string{"\x01", def, eofCursor}, 0x42, 0},
		{"cursor, no eof", StmtExecute, true, []string{"\x01", def, "\xfe\x00\x00\x42\x00\x00\x00"}, 0x42, 0},
		{"fetch", StmtFetch, false, []string{"\x00\x001", "\x00\x001", "\xfe\x00\x00\x82\x00"}, 0x82, 0},
		{"long row", Query, false, []string{"\x01", def, eof, long, "", "\x011", eof}, 2, 0},
		{"long row that goes on like an end", Query, false, []string{"\x01", def, eof, long, eof, eof}, 2, 0},
		{"row like an end", Query, true, []string{"\x01", def, "\xfe" + strings.Repeat("x", MaxPayload-1), "x", last}, 2, 0},
		{"prepared", StmtPrepare, false, []string{"\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00", def, eof, def, def, eof}, 2, 0},
		{"prepared, no eof", StmtPrepare, true, []string{"\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00", def, def, def}, 0, 0},
		{"prepared, no parameters", StmtPrepare, false, []string{"\x00\x05\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", def, eof}, 2, 0},
		{"prepared, nothing", StmtPrepare, false, []string{"\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}, 0, 0},
		{"fields", FieldList, false, []string{def, def, eof}, 2, 0},
		{"statistics", Statistics, false, []string{"Uptime: 5"}, 0, 0},
		{"set option", SetOption, false, []string{eof}, 2, 0},
		{"close", StmtClose, false, nil, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Reply{}
			capabilities := uint32(0)
			if c.deprecate {
				capabilities = ClientDeprecateEOF
			}
			a.Expect(c.command, capabilities)
			n, err := follow(&a, c.packets)
			if err != nil || n != len(c.packets) || !a.Ended() || a.Status != c.status || a.Code != c.code {
				t.Errorf("took %d of %d, %v, ended %t, status %#x, code %d; want status %#x, code %d", n, len(c.packets), err, a.Ended(), a.Status, a.Code, c.status, c.code)
			}
			if c.command == StmtPrepare && a.Statement != 5 {
				t.Errorf("statement %d, want 5", a.Statement)
			}
		})
	}
}

func TestReplyRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		command Command
		packets []string
		want    error
	}{
		{"local file", Query, []string{"\xfb/etc/passwd"}, ErrLocalInfile},
		{"empty", Query, []string{""}, ErrMalformed},
		{"no columns", Query, []string{"\x01", "\x03def", "\x03def"}, ErrMalformed},
		{"short ok", Query, []string{"\x00\x00"}, ErrMalformed},
		{"short prepared", StmtPrepare, []string{"\x00\x05"}, ErrMalformed},
		{"short error", Query, []string{"\xff"}, ErrMalformed},
	} {
		a := Reply{}
		a.Expect(c.command, 0)
		if _, err := follow(&a, c.packets); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzReply: whatever a server sends, a Reply takes it packet by packet without harm.
func FuzzReply(f *testing.F) {
	f.Add(byte(Query), true, []byte("\x01\x00\x00\x01\x01\x04\x00\x00\x02\x03def\x02\x00\x00\x03\x011\x07\x00\x00\x04\xfe\x00\x00\x02\x00\x00\x00"))
	f.Add(byte(StmtPrepare), false, []byte("\x0c\x00\x00\x01\x00\x05\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, command byte, deprecate bool, stream []byte) {
		a := Reply{}
		capabilities := uint32(0)
		if deprecate {
			capabilities = ClientDeprecateEOF
		}
		a.Expect(Command(command), capabilities)
		for len(stream) >= HeaderSize && !a.Ended() {
			n, _ := Header(stream)
			stream = stream[HeaderSize:]
			n = min(n, len(stream))
			p := stream[:n:n]
			if n > 0 && a.Whole(n, p[0]) && a.HasOK(p) {
				_, _ = ParseOK(p)
			}
			if a.Next(n, bytes.Clone(p)) != nil {
				return
			}
			stream = stream[n:]
		}
	})
}
