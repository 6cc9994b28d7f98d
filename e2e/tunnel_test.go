package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// tunnel is an open WebSocket as far as what is between sees it.
type tunnel struct {
	c      net.Conn
	r      *bufio.Reader
	server string // whose app it goes to
}

// openTunnel opens one through the server at address.
func openTunnel(t *testing.T, address string) tunnel {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(ring.Dir("s1", "lib"), "authority", "visitors.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{RootCAs: roots, ServerName: Domain, NextProtos: []string{"http/1.1"}}}
	c, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(address, "443"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	u := tunnel{c: c, r: bufio.NewReader(c)}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /socket HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", Domain); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(u.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("open a WebSocket: %v, %v, want 101", res, err)
	}
	u.server = res.Header.Get("X-Server")
	return u
}

// echo sends a word and reads it back.
func (u tunnel) echo(word string) error {
	_ = u.c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(u.c, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(u.r, got); err != nil {
		return err
	}
	if string(got) != word {
		return fmt.Errorf("got %q, want %q", got, word)
	}
	return nil
}

// ended waits for its end; nil: it came.
func (u tunnel) ended() error {
	_ = u.c.SetDeadline(time.Now().Add(20 * time.Second))
	n, err := io.Copy(io.Discard, u.r)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || n > 0 {
		return fmt.Errorf("it goes on: %d bytes, %v", n, err)
	}
	return nil
}

// finishing is how many former processes there are on all servers.
func finishing(t *testing.T) int {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, srv := range s.Servers {
		for _, w := range srv.Workers {
			n += len(w.Retiring)
		}
	}
	return n
}
