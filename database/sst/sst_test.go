package sst

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("--tls /t --role donor --address 10.0.0.1:4444/trivet//1 --socket /s --datadir /d/ --defaults-file /f --unknown 3 --gtid u:7 --gtid-domain-id 77 --bypass --binlog bin --mysqld-args --role joiner"))
	if err != nil {
		t.Fatal(err)
	}
	want := options{role: "donor", address: "10.0.0.1:4444/trivet//1", dir: "/d", defaults: "/f", socket: "/s", gtid: "u:7", domain: "77", binlog: "bin", bypass: true, tls: "/t"}
	if o != want {
		t.Errorf("got %+v, want %+v", o, want)
	}
	for _, bad := range []string{"", "--role", "--tls /t --datadir / --address a", "--tls /t --datadir d --address a", "--parent x --tls /t --datadir /d --address a"} {
		if _, err := parse(strings.Fields(bad)); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{"10.0.0.1": "10.0.0.1:4444", "10.0.0.1:5/x//1": "10.0.0.1:5", "[fd00::1]:4444/x": "[fd00::1]:4444", "[fd00::1]": "[fd00::1]:4444"} {
		if got := hostPort(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestFrames(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 60_000) // more than two frames
	var wire bytes.Buffer
	f := frames{&wire}
	if err := f.header(header{Version: version, GTID: "u:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := f.end(); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, 4, 5000} {
		u := &unframed{r: bytes.NewReader(wire.Bytes()[:wire.Len()-cut])}
		if h, err := u.header(); err != nil || h.GTID != "u:1" {
			t.Fatalf("got %+v, %v", h, err)
		}
		got, err := io.ReadAll(u)
		if whole := err == nil && u.done && bytes.Equal(got, data); whole != (cut == 0) {
			t.Errorf("without the last %d bytes: got a whole copy: %t (%v)", cut, whole, err)
		}
		if cut > 0 && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("without the last %d bytes: got %v, want unexpected EOF", cut, err)
		}
	}
}

func FuzzUnframed(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}', 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(_ *testing.T, data []byte) {
		u := &unframed{r: bytes.NewReader(data)}
		if _, err := u.header(); err == nil {
			_, _ = io.Copy(io.Discard, u)
		}
	})
}

// TestJoinerTakesDatabasesOnly connects to a joiner as a stranger, then as a donor that bypasses.
func TestJoinerTakesDatabasesOnly(t *testing.T) {
	a := mtlstest.New(t, "foo")
	dir := tlsFolder(t, a, "s1")
	address := free(t)
	lines, out := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- SST(ctx, []string{"--tls", dir, "--role", "joiner", "--address", address, "--datadir", t.TempDir()}, nil, out, io.Discard)
	}()
	read := func() string {
		b := make([]byte, 200)
		n, err := lines.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got, want := read(), "ready "+address+"/trivet//1\n"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	if c, err := tls.Dial("tcp", address, mtls.Client(a.Source(t, "s2", part.Web), "", part.Database)); err == nil {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a web server's identity was taken")
		}
		_ = c.Close()
	}
	var donor bytes.Buffer
	args := []string{"--tls", tlsFolder(t, a, "s2"), "--role", "donor", "--address", address + "/trivet//1", "--datadir", t.TempDir(), "--gtid", "u:7", "--gtid-domain-id", "77", "--bypass"}
	if err := SST(ctx, args, nil, &donor, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got, want := donor.String(), "continue\ndone u:7\n"; got != want {
		t.Errorf("donor: got %q, want %q", got, want)
	}
	if got, want := read(), "u:7 77\n"; got != want {
		t.Errorf("joiner: got %q, want %q", got, want)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.81.9:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func tlsFolder(t *testing.T, a *mtlstest.Authority, server string) string {
	t.Helper()
	dir := t.TempDir()
	id := a.Identity(t, server, part.Database)
	for name, data := range map[string][]byte{CAFile: a.Bundle, CertFile: id.Certificate, KeyFile: id.Key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
