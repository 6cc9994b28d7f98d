// Package worker runs a part in a process of its own: as its own user, without
// capabilities and with no way to win any, inside a Landlock fence (landlock(7)),
// behind a filter of system calls (seccomp(2)) that refuses among others to run
// a program, and with listening sockets that node opened and keeps.
//
// Node's half is Worker, which is a part.Part like any other; the process's
// half is Serve. Between them is one unix socket on which node pushes the
// part's State, and the worker answers with what it applied, its health, and
// its few questions. The worker dials; so when node dies the worker goes on
// with the last state, and finds the next node by itself.
package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"trivet/internal/part"
)

const (
	beat       = 2 * time.Second  // a worker reports its health at least this often
	silence    = 12 * time.Second // a worker that has not reported for so long is ended
	frameLimit = 8 << 20          // bytes of one message; a state with all its certificates is some 50 kB
	writeLimit = 5 * time.Second  // deadline of one message

	inspectLimit = 4 * time.Second // an Inspect that nobody bounds more closely
)

// callInspect is node's question for what a part says of itself.
const callInspect = "inspect"

// message is one line of JSON in either direction; exactly one field is set.
type message struct {
	State   *stateMessage   `json:"state,omitempty"`   // node → worker
	Turn    *struct{}       `json:"turn,omitempty"`    // node → worker: it is in charge
	Yielded *struct{}       `json:"yielded,omitempty"` // worker → node: it reads no packets any more and its metrics have moved
	Applied *appliedMessage `json:"applied,omitempty"` // worker → node
	Health  *healthMessage  `json:"health,omitempty"`  // worker → node
	Call    *callMessage    `json:"call,omitempty"`    // either way: a question
	Answer  *answerMessage  `json:"answer,omitempty"`  // either way: the answer to one
}

type stateMessage struct {
	Seq   uint64     `json:"seq"`
	State part.State `json:"state"`
}

type appliedMessage struct {
	Seq   uint64 `json:"seq"`
	Error string `json:"error,omitempty"`
}

type healthMessage struct {
	Problem string `json:"problem,omitempty"`
}

type callMessage struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Body   json.RawMessage `json:"body,omitempty"`
}

type answerMessage struct {
	ID    uint64          `json:"id"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error string          `json:"error,omitempty"`
}

// conn sends and receives messages; send may be called concurrently.
type conn struct {
	c     net.Conn
	scan  *bufio.Scanner
	mu    sync.Mutex
	calls calls      // questions to the other side
	asked *questions // of the other side
}

// newConn makes a conn whose questions answer serves.
func newConn(c net.Conn, answer func(context.Context, string, json.RawMessage) (any, error)) *conn {
	s := bufio.NewScanner(c)
	s.Buffer(nil, frameLimit)
	return &conn{c: c, scan: s, asked: newQuestions(answer)}
}

// end closes the connection; nobody waits for an answer any more.
func (c *conn) end() {
	_ = c.c.Close()
	c.calls.close()
	c.asked.wait.Wait()
}

func (c *conn) send(m message) error {
	line, err := encode(m)
	if err != nil {
		return err
	}
	return c.write(line)
}

// encode makes a line of m, unless it is one that the other side would refuse.
func encode(m message) ([]byte, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(data) >= frameLimit {
		return nil, fmt.Errorf("encode message: its %d bytes are over the limit of %d", len(data), frameLimit)
	}
	return append(data, '\n'), nil
}

func (c *conn) write(line []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	_, err := c.c.Write(line)
	return err
}

func (c *conn) receive() (message, error) {
	var m message
	if !c.scan.Scan() {
		if err := c.scan.Err(); err != nil {
			return m, err
		}
		return m, io.EOF
	}
	if err := json.Unmarshal(c.scan.Bytes(), &m); err != nil {
		return m, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}
