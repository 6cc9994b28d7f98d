package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"trivet/database/backup"
	"trivet/internal/part"
)

// How long a node may take to answer.
const (
	dialLimit    = 2 * time.Second
	answerLimit  = 5 * time.Second  // a question; for logs the first byte
	declareLimit = 35 * time.Second // an agreement of the cluster
	uploadLimit  = time.Minute      // a release taken and unpacked
)

// Client speaks to one node over its control socket. It is what the command line uses.
type Client struct {
	Server string // for messages
	http   *http.Client
}

// Dial returns a client for the socket at path. No connection is made yet.
func Dial(server, path string) *Client {
	d := net.Dialer{Timeout: dialLimit}
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", path)
	}}
	return &Client{Server: server, http: &http.Client{Transport: t}}
}

// ErrUnreachable is the error of a node that does not answer.
var ErrUnreachable = errors.New("its node does not answer")

// Status asks for the server's status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", answerLimit, nil, &s)
}

// Declared asks for the site that is in force.
func (c *Client) Declared(ctx context.Context) (Declared, error) {
	var d Declared
	return d, c.call(ctx, http.MethodGet, "/v1/declared", answerLimit, nil, &d)
}

// SignIn asks for a one-time sign-in to the console.
func (c *Client) SignIn(ctx context.Context) (SignIn, error) {
	var s SignIn
	return s, c.call(ctx, http.MethodPost, "/v1/signin", answerLimit, nil, &s)
}

// Inspect asks what a part of the server says of itself, as JSON; see part.Inspector.
func (c *Client) Inspect(ctx context.Context, partName string) (json.RawMessage, error) {
	var v json.RawMessage
	return v, c.call(ctx, http.MethodGet, "/v1/inspect/"+url.PathEscape(partName), answerLimit, nil, &v)
}

// Plan asks what declaring d would change on the server.
func (c *Client) Plan(ctx context.Context, d Declared) ([]Change, error) {
	var changes []Change
	return changes, c.send(ctx, "/v1/plan", answerLimit, d, &changes)
}

// Apply declares d; the answer holds its revision.
func (c *Client) Apply(ctx context.Context, d Declared) (Declared, error) {
	var out Declared
	return out, c.send(ctx, "/v1/apply", declareLimit, d, &out)
}

// Drain agrees that server gets no new requests, or with drained false that it
// gets them again. Any node can be asked for any server.
func (c *Client) Drain(ctx context.Context, server string, drained bool) (Drains, error) {
	method := http.MethodDelete
	if drained {
		method = http.MethodPut
	}
	var d Drains
	return d, c.call(ctx, method, "/v1/drained/"+url.PathEscape(server), declareLimit, nil, &d)
}

// SwitchWriter moves the database's writer to the server named, or if none is to
// any that can take it. Any node can be asked.
func (c *Client) SwitchWriter(ctx context.Context, server string) (Switch, error) {
	var s Switch
	return s, c.call(ctx, http.MethodPut, "/v1/database/writer?server="+url.QueryEscape(server), switchLimit+answerLimit, nil, &s)
}

// RestartDatabase restarts the server's mariadbd and returns when it is synced again.
func (c *Client) RestartDatabase(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/database/restart", restartLimit+answerLimit, nil, &struct{}{})
}

// RotatePassword begins a change of the app's database password. Any node can be asked.
func (c *Client) RotatePassword(ctx context.Context) (Rotation, error) {
	var r Rotation
	return r, c.call(ctx, http.MethodPost, "/v1/database/password", answerLimit, nil, &r)
}

// Rotation asks how far the last change of the app's database password is.
func (c *Client) Rotation(ctx context.Context) (Rotation, error) {
	var r Rotation
	return r, c.call(ctx, http.MethodGet, "/v1/database/password", answerLimit, nil, &r)
}

// Shell notes on the server that a person opens the database's prompt, or has
// closed it, and asks how to sign in.
func (c *Client) Shell(ctx context.Context, s Shell) (Account, error) {
	var a Account
	return a, c.send(ctx, "/v1/database/shell", answerLimit, s, &a)
}

// ForceDatabase agrees that a server starts the database alone.
func (c *Client) ForceDatabase(ctx context.Context, f part.DatabaseForce) error {
	return c.send(ctx, "/v1/database/force", declareLimit, f, &struct{}{})
}

// Release hands the server the tar of a release.
func (c *Client) Release(ctx context.Context, hash string, tar io.Reader) error {
	return c.call(ctx, http.MethodPut, "/v1/release/"+hash, uploadLimit, tar, &struct{}{})
}

// Logs returns the stream of a part's last lines, and what follows; the caller closes it.
func (c *Client) Logs(ctx context.Context, partName string, lines int, follow bool) (io.ReadCloser, error) {
	q := url.Values{"part": {partName}, "lines": {strconv.Itoa(lines)}}
	if follow {
		q.Set("follow", "1")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(answerLimit, func() { cancel(noAnswer(answerLimit)) })
	res, err := c.do(ctx, http.MethodGet, "/v1/logs?"+q.Encode(), nil)
	late.Stop()
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return stream{res.Body, cancel}, nil
}

// stream is an answer that lasts; its end frees the request.
type stream struct {
	io.ReadCloser
	end context.CancelCauseFunc
}

func (s stream) Close() error {
	s.end(nil)
	return s.ReadCloser.Close()
}

// Backups asks what there is to restore from.
func (c *Client) Backups(ctx context.Context) (backup.Listing, error) {
	var l backup.Listing
	return l, c.call(ctx, http.MethodGet, "/v1/backup/list", declareLimit, nil, &l)
}

// BackupKey asks for the key of the site's copies.
func (c *Client) BackupKey(ctx context.Context) (string, error) {
	var k BackupKey
	return k.Key, c.call(ctx, http.MethodGet, "/v1/backup/key", answerLimit, nil, &k)
}

// Backup has the server do a task, one of now, drill and restore, and tells say
// of its progress. It lasts as long as the task, and ends it when ctx ends.
func (c *Client) Backup(ctx context.Context, task string, o backup.Order, say func(backup.Progress)) (backup.Outcome, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return backup.Outcome{}, err
	}
	res, err := c.do(ctx, http.MethodPost, "/v1/backup/"+task, bytes.NewReader(data))
	if err != nil {
		return backup.Outcome{}, err
	}
	defer func() { _ = res.Body.Close() }()
	dec := json.NewDecoder(res.Body)
	for {
		var m backup.Message
		if err := dec.Decode(&m); err != nil {
			return backup.Outcome{}, fmt.Errorf("%s: its answer broke off: %w", c.Server, err)
		}
		switch {
		case m.Error != "":
			return backup.Outcome{}, errors.New(m.Error)
		case m.Outcome != nil:
			return *m.Outcome, nil
		case m.Progress != nil:
			say(*m.Progress)
		}
	}
}

func noAnswer(limit time.Duration) error { return fmt.Errorf("no answer after %s", limit) }

func (c *Client) send(ctx context.Context, path string, limit time.Duration, in, out any) error {
	data, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, path, limit, bytes.NewReader(data), out)
}

func (c *Client) call(ctx context.Context, method, path string, limit time.Duration, body io.Reader, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, noAnswer(limit))
	defer cancel()
	res, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("%s: read its answer: %w", c.Server, err)
	}
	return nil
}

// do returns an answer whose status is 200.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
			return nil, cause
		} else if cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("%s: %w (%w)", c.Server, ErrUnreachable, err)
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }()
	var f failure
	data, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if json.Unmarshal(data, &f) != nil || f.Error == "" {
		f.Error = string(bytes.TrimSpace(data))
	}
	return nil, fmt.Errorf("%s: %s", c.Server, f.Error)
}
