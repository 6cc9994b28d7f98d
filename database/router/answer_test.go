package router

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"trivet/database/router/wire"
	"trivet/internal/metric"
)

// TestAnswerInPieces gives answers to the router in pieces of all sizes: what
// the client gets is the same, and nothing of session tracking.
func TestAnswerInPieces(t *testing.T) {
	var changes []byte
	for _, name := range []string{"sql_mode", "time_zone"} {
		changes = wire.AppendChange(changes, wire.Change{Kind: wire.ChangeVariable, Name: []byte(name), Value: []byte(strings.Repeat("v", 90))})
	}
	ok := func(head byte, status uint16, with []byte) []byte {
		o, err := wire.ParseOK([]byte{head, 1, 0, byte(status), byte(status >> 8), 0, 0})
		must(t, err)
		return o.Append(nil, with)
	}
	const more = wire.StatusAutocommit | wire.StatusMoreResults
	answer := func(with []byte) (out []byte) {
		sequence := byte(0)
		for _, p := range [][]byte{
			ok(0, more, with),
			{1},
			[]byte("\x03def"), []byte("\x011"), bytes.Repeat([]byte("r"), 500), ok(0xfe, more, with),
			{2},
			[]byte("\x03def"), []byte("\x03def"), bytes.Repeat([]byte("r"), 2*answerChunk), bytes.Repeat([]byte("r"), answerChunk-9),
			ok(0xfe, more, with), ok(0, more, nil), ok(0, wire.StatusAutocommit, with),
		} {
			sequence++
			out = append(out, wire.Frame(sequence, p)...)
		}
		return out
	}
	for _, size := range []int{1, 2, 3, 4, 5, 7, 64, 1000, answerChunk - 1, answerChunk, 10 * answerChunk} {
		got, s := passed(t, answer(changes), size)
		if want := answer(nil); !bytes.Equal(got, want) {
			t.Errorf("pieces of %d: got %d bytes, want %d", size, len(got), len(want))
		}
		if len(s.variables) != 2 || s.fixed {
			t.Errorf("pieces of %d: noted %v, fixed %t", size, s.variables, s.fixed)
		}
	}
}

// passed is what a client gets of an answer that its server sends in pieces.
func passed(t *testing.T, answer []byte, size int) ([]byte, *session) {
	t.Helper()
	client, mine := net.Pipe()
	server, up := net.Pipe()
	for _, c := range []net.Conn{client, mine, server, up} {
		must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		defer func() { _ = c.Close() }()
	}
	go func() {
		for rest := answer; len(rest) > 0; {
			n := min(size, len(rest))
			if _, err := server.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
	}()
	r := New(Config{Log: slog.New(slog.DiscardHandler), Metrics: metric.NewRegistry()})
	s := &session{Conn: mine, r: r, p: r.writes}
	s.reply.Expect(wire.Query, wire.ClientDeprecateEOF)
	done := make(chan error, 1)
	go func() {
		done <- s.answer(&upstream{Conn: up}, &turn{request: &request{command: wire.Query}})
		_ = mine.Close()
	}()
	got, err := io.ReadAll(client)
	must(t, err)
	must(t, <-done)
	return got, s
}
