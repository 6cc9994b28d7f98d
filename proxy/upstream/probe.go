package upstream

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"trivet/proxy/wire"
)

const probeSize = 8 << 10 // of a check's answer, head and body

// probe is the connection that checks go over: a check does not queue behind requests.
type probe struct {
	mu   sync.Mutex
	conn *Conn
}

// Probe sends a GET past the pool, whatever the target's state, over a
// connection of its own that is kept for the next. It returns the answer's
// status and the first line of its body, without what cannot be printed.
func (t *Target) Probe(ctx context.Context, host, path string, fields []wire.Field) (status int, line string, err error) {
	p := &t.probe
	p.mu.Lock()
	defer p.mu.Unlock()
	reused := p.conn != nil
	status, line, err = p.send(ctx, t, host, path, fields)
	if err != nil && reused && ctx.Err() == nil {
		status, line, err = p.send(ctx, t, host, path, fields) // it may have been closed meanwhile
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if t.retired.Load() {
		p.drop()
	}
	return status, line, err
}

func (p *probe) send(ctx context.Context, t *Target, host, path string, fields []wire.Field) (int, string, error) {
	if p.conn == nil {
		c, err := t.connect(ctx)
		if err != nil {
			return 0, "", err
		}
		p.conn = c
	}
	c := p.conn
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past) })
	a := answer{in: c}
	_, err := c.Write(question(host, path, fields))
	if err == nil {
		err = a.read()
	}
	if !stop() || err != nil || a.head.Close {
		p.drop()
	}
	return a.head.Status, firstLine(a.body), err
}

func question(host, path string, fields []wire.Field) []byte {
	b := wire.AppendRequestLine(make([]byte, 0, 512), []byte("GET"), []byte(path))
	b = wire.AppendField(b, []byte("Host"), []byte(host))
	for _, f := range fields {
		b = wire.AppendField(b, f.Name, f.Value)
	}
	return wire.AppendEnd(b)
}

// answer is a small answer, read whole.
type answer struct {
	in   io.Reader
	buf  []byte
	head wire.Response
	body []byte
}

var errProbeSize = errors.New("its answer to a check is longer than 8 kB")

func (a *answer) read() error {
	for {
		if err := a.readHead(); err != nil {
			return err
		}
		if a.head.Status >= 200 {
			return a.readBody()
		}
	}
}

// readHead reads one head and leaves in buf what follows it.
func (a *answer) readHead() error {
	for {
		end, err := wire.HeadEnd(a.buf, 0)
		if err != nil {
			return err
		}
		if end > 0 {
			err = a.head.Parse(a.buf[:end], []byte("GET"), nil)
			a.buf = a.buf[end:]
			return err
		}
		if err := a.more(); err != nil {
			return noEOF(err)
		}
	}
}

func (a *answer) readBody() error {
	switch n := a.head.Length; n {
	case wire.UntilClose:
		return a.readAll()
	case -1:
		return a.readChunks()
	default:
		for int64(len(a.buf)) < n {
			if err := a.more(); err != nil {
				return noEOF(err)
			}
		}
		a.body = a.buf[:n]
		a.head.Close = a.head.Close || int64(len(a.buf)) > n // it says more than it should
		return nil
	}
}

func (a *answer) readAll() error {
	a.head.Close = true
	for {
		err := a.more()
		a.body = a.buf
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (a *answer) readChunks() error {
	var c wire.Chunks
	for !c.Done() {
		data, n, err := c.Next(a.buf)
		if err != nil {
			return err
		}
		a.body = append(a.body, data...)
		a.buf = a.buf[n:]
		if n == 0 && !c.Done() {
			if err := a.more(); err != nil {
				return noEOF(err)
			}
		}
	}
	return nil
}

// more reads some more into buf.
func (a *answer) more() error {
	if len(a.buf)+len(a.body) >= probeSize {
		return errProbeSize
	}
	var room [2 << 10]byte
	n, err := a.in.Read(room[:])
	a.buf = append(a.buf, room[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// firstLine is what of body fits into a reason.
func firstLine(body []byte) string {
	line, _, _ := strings.Cut(string(body), "\n")
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
		p.conn = nil
	}
}

// close drops the connection, unless a check is under way, which then does it itself.
func (p *probe) close() {
	if p.mu.TryLock() {
		p.drop()
		p.mu.Unlock()
	}
}
