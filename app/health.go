package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"time"

	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/site"
)

// streak counts the outcomes of checks in a row.
type streak struct {
	began     time.Time
	good, bad int
	up        bool
}

func (s *streak) count(err error) {
	if err != nil {
		s.good, s.bad = 0, s.bad+1
		return
	}
	s.good, s.bad = s.good+1, 0
}

// pace is the wait until the next check: short while an instance starts, so
// that it is used as soon as it can be.
func (s *streak) pace(h site.Health) time.Duration {
	if !s.up && time.Since(s.began) < startLimit {
		return min(probePace, h.Interval.Std())
	}
	return pace.Next(h.Interval.Std())
}

// checker asks one instance for its health, by one connection that it keeps.
type checker struct {
	client *http.Client
}

func newChecker(i part.Instance) *checker {
	var d net.Dialer
	return &checker{client: &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, i.Network, i.Address)
			},
			MaxIdleConns: 1, DisableCompression: true, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *checker) close() { c.client.CloseIdleConnections() }

// get is nil when the instance answers with a status that counts as well.
func (c *checker) get(ctx context.Context, domain string, h site.Health) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout.Std())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+domain+h.Path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "trivet")
	res, err := c.client.Do(req)
	if err != nil {
		return plain(err, h)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if !h.Well(res.StatusCode) {
		return fmt.Errorf("%s answers %d", h.Path, res.StatusCode)
	}
	return nil
}

// plain says in an operator's words why a check got no answer.
func plain(err error, h site.Health) error {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s did not answer within %s", h.Path, h.Timeout)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("it does not listen")
	}
	return err
}

// lastLine returns the last line of a file that is not empty, or "".
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const window = 4 << 10
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	data := make([]byte, min(size, window))
	if _, err := f.ReadAt(data, size-int64(len(data))); err != nil {
		return ""
	}
	data = bytes.TrimSpace(data)
	return string(bytes.TrimSpace(data[bytes.LastIndexByte(data, '\n')+1:]))
}
