package proxy

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An answer to a safe request is held back until it is whole, if it is at
// most holdSize and, where its length is unknown, comes within holdTime.
const (
	holdSize = 64 << 10
	holdTime = 20 * time.Millisecond
)

// hold gives resp a body that ends the attempt when it is closed, and reads it
// ahead where that makes the request repeatable. On error, resp is closed and
// must not be used.
func (a *attempt) hold(t *tries, resp *http.Response) error {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return a.holdTunnel(resp)
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, attempt: a}
	switch n := resp.ContentLength; {
	case !t.safe || n == 0 || n > holdSize || t.request.Method == http.MethodHead || streams(resp):
		return nil
	case n > 0:
		return holdKnown(resp, int(n))
	}
	return holdUnknown(resp)
}

// streams says that the answer is meant to come in pieces.
func streams(resp *http.Response) bool {
	return len(resp.Trailer) > 0 || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
}

func holdKnown(resp *http.Response, n int) error {
	buf := make([]byte, n)
	_, err := io.ReadFull(resp.Body, buf)
	_ = resp.Body.Close()
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	resp.Body = &wholeBody{rest: buf}
	return nil
}

// holdUnknown reads until the end, the size or the time, whichever is first.
func holdUnknown(resp *http.Response) error {
	h := &ahead{done: make(chan struct{})}
	go h.fill(resp.Body)
	timer := time.NewTimer(holdTime)
	defer timer.Stop()
	select {
	case <-h.done:
	case <-timer.C:
	}
	whole, buf, err := h.leave()
	if err != nil && err != io.EOF {
		_ = resp.Body.Close()
		<-h.done
		return fmt.Errorf("read answer: %w", err)
	}
	if !whole || len(resp.Trailer) > 0 {
		resp.Body = &aheadBody{ReadCloser: resp.Body, ahead: h}
		return nil
	}
	_ = resp.Body.Close()
	resp.Body = &wholeBody{rest: buf}
	resp.ContentLength, resp.TransferEncoding = int64(len(buf)), nil
	resp.Header.Set("Content-Length", strconv.Itoa(len(buf)))
	return nil
}

// answerBody ends its attempt when it is closed.
type answerBody struct {
	io.ReadCloser
	attempt *attempt
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.attempt.end()
	return err
}

// holdTunnel does for a switched connection what answerBody does for an answer.
func (a *attempt) holdTunnel(resp *http.Response) error {
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		_ = resp.Body.Close()
		return ErrUpgrade
	}
	resp.Body = &tunnel{ReadWriteCloser: conn, attempt: a}
	return nil
}

type tunnel struct {
	io.ReadWriteCloser
	attempt *attempt
}

func (b *tunnel) Close() error {
	err := b.ReadWriteCloser.Close()
	b.attempt.end()
	return err
}

// wholeBody is an answer that was read to its end.
type wholeBody struct{ rest []byte }

func (b *wholeBody) Read(p []byte) (int, error) {
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	if len(b.rest) == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (b *wholeBody) Close() error { return nil }

// ahead is what one goroutine read of a body before anybody asked.
type ahead struct {
	done chan struct{} // closed when the goroutine has ended

	mu   sync.Mutex
	buf  []byte
	err  error
	stop bool // end after the Read that is under way
}

// fill reads from r until it ends, is told to stop, or has enough.
func (h *ahead) fill(r io.Reader) {
	defer close(h.done)
	buf := make([]byte, 0, 4<<10)
	for {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if h.came(buf, err) {
			return
		}
	}
}

// came notes what was read and says whether that is all.
func (h *ahead) came(buf []byte, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.buf, h.err = buf, err
	return err != nil || h.stop || len(buf) >= holdSize
}

// leave tells the goroutine to stop and returns what is there.
func (h *ahead) leave() (whole bool, buf []byte, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = true
	return h.err == io.EOF, h.buf, h.err
}

// aheadBody gives first what was read ahead, then the rest.
type aheadBody struct {
	io.ReadCloser
	ahead *ahead
	given int
}

func (b *aheadBody) Read(p []byte) (int, error) {
	if n := b.take(p); n > 0 {
		return n, nil
	}
	<-b.ahead.done
	if n := b.take(p); n > 0 {
		return n, nil
	}
	if _, _, err := b.ahead.leave(); err != nil {
		return 0, err
	}
	return b.ReadCloser.Read(p)
}

func (b *aheadBody) take(p []byte) int {
	_, buf, _ := b.ahead.leave()
	n := copy(p, buf[b.given:])
	b.given += n
	return n
}

func (b *aheadBody) Close() error {
	b.ReadCloser.(*answerBody).attempt.cancel(nil) // frees a Read that is under way
	err := b.ReadCloser.Close()
	<-b.ahead.done
	return err
}
