package upstream

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"trivet/proxy/wire"
)

// probe is the connection that checks go over: a check does not queue behind requests.
type probe struct {
	mu   sync.Mutex
	conn *Conn
	in   *bufio.Reader
}

// Probe sends a GET past the pool, whatever the target's state, over a
// connection of its own that is kept for the next. It returns the answer's
// status and the first line of its body.
func (t *Target) Probe(ctx context.Context, host, path string, fields []wire.Field) (status int, line string, err error) {
	t.probe.mu.Lock()
	defer t.probe.mu.Unlock()
	reused := t.probe.conn != nil
	status, line, err = t.probe.send(ctx, t, host, path, fields)
	if err != nil && reused && ctx.Err() == nil {
		status, line, err = t.probe.send(ctx, t, host, path, fields)
	}
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	return status, line, err
}

func (p *probe) send(ctx context.Context, t *Target, host, path string, fields []wire.Field) (int, string, error) {
	if p.conn == nil {
		c, err := t.connect(ctx)
		if err != nil {
			return 0, "", err
		}
		p.conn, p.in = c, bufio.NewReaderSize(c, 1<<10)
	}
	c := p.conn
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	status, line, keep, err := p.exchange(host, path, fields)
	if !stop() || !keep || err != nil {
		p.drop()
	}
	return status, line, err
}

func (p *probe) exchange(host, path string, fields []wire.Field) (status int, line string, keep bool, err error) {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\n", path, host)
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(p.conn, b.String()); err != nil {
		return 0, "", false, err
	}
	resp, err := http.ReadResponse(p.in, nil)
	if err != nil {
		return 0, "", false, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil {
		return 0, "", false, err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1))
	return resp.StatusCode, firstLine(string(body)), n == 0 && !resp.Close, err
}

// firstLine is what of body fits into a reason.
func firstLine(body string) string {
	line, _, _ := strings.Cut(body, "\n")
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, strings.TrimSpace(line))
	return line[:min(len(line), 160)]
}

func (p *probe) drop() {
	if p.conn != nil {
		_ = p.conn.Conn.Close()
		p.conn, p.in = nil, nil
	}
}

func (p *probe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}
