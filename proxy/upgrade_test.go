package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"

	"trivet/proxy/proxytest"

	"golang.org/x/net/http2"
)

// TestExtendedConnect: a WebSocket over HTTP/2 is an Upgrade to the target (RFC 8441).
func TestExtendedConnect(t *testing.T) {
	got := make(chan *http.Request, 1)
	s, cfg := secure(t, stand{targets: targetsOf(raw(t, "echo", func(c net.Conn, r *bufio.Reader) {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		got <- q
		if q.URL.Path == "/refuse" {
			_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello")
		_, _ = io.Copy(c, r)
	}))})
	tr := &http2.Transport{TLSClientConfig: cfg} //nolint:staticcheck // that of net/http refuses :protocol
	defer tr.CloseIdleConnections()              //nolint:staticcheck // as above
	send := tr.RoundTrip                         //nolint:staticcheck // as above
	connect := func(path string) (*http.Response, *io.PipeWriter) {
		body, more := io.Pipe()
		r := &http.Request{
			Method: "CONNECT", URL: &url.URL{Scheme: "https", Host: s.address, Path: path}, Host: "www.foobar.com",
			Header: http.Header{":protocol": {"websocket"}, "Sec-Websocket-Version": {"13"}}, Body: body, ContentLength: -1,
		}
		resp, err := send(r.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp, more
	}
	// The client learns that the server knows extended CONNECT by an ordinary request.
	first, err := http.NewRequest("GET", "https://"+s.address+"/refuse", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := send(first); err != nil || resp.StatusCode != 403 {
		t.Fatal(resp, err)
	}
	<-got
	resp, more := connect("/chat")
	q := <-got
	if q.Method != "GET" || q.Header.Get("Upgrade") != "websocket" || len(q.Header.Get("Sec-Websocket-Key")) != 24 || q.Header.Get("Sec-Websocket-Version") != "13" {
		t.Errorf("target got %s %v, want an Upgrade with a key", q.Method, q.Header)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Sec-Websocket-Accept") != "" || resp.Header.Get("Sec-Websocket-Protocol") != "chat" {
		t.Errorf("got %d %v, want 200 and the protocol", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewReader(resp.Body)
	want := "hello"
	for i := range 5 {
		b := make([]byte, len(want))
		if _, err := io.ReadFull(lines, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v, want %q", b, err, want)
		}
		want = fmt.Sprintf("word %d", i)
		_, _ = io.WriteString(more, want)
	}
	_ = more.Close()
	if _, err := io.ReadAll(lines); err != nil {
		t.Errorf("end: %v", err)
	}
	if refused, _ := connect("/refuse"); refused.StatusCode != 403 {
		t.Errorf("refused: got %d, want 403", refused.StatusCode)
	}
	proxytest.Until(t, "nothing in flight", func() bool { return s.pool.InFlight() == 0 })
}
