package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
)

// questionLimit is how many questions of the other side are answered at a time; more are refused.
const questionLimit = 8

// errAway is the error of a question to which the other side will not answer any more.
var errAway = errors.New("it went away")

// calls are the questions that one side asked over one connection.
type calls struct {
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *answerMessage
	closed  bool
}

// ask sends a question over c and waits for its answer, at most until ctx ends.
func (k *calls) ask(ctx context.Context, c *conn, method string, body json.RawMessage) (json.RawMessage, error) {
	id, answer, err := k.open()
	if err != nil {
		return nil, err
	}
	defer k.drop(id)
	if err := c.send(message{Call: &callMessage{ID: id, Method: method, Body: body}}); err != nil {
		return nil, err
	}
	select {
	case a, ok := <-answer:
		if !ok {
			return nil, errAway
		}
		if a.Error != "" {
			return nil, errors.New(a.Error)
		}
		return a.Body, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (k *calls) open() (uint64, <-chan *answerMessage, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return 0, nil, errAway
	}
	if k.waiting == nil {
		k.waiting = map[uint64]chan *answerMessage{}
	}
	k.next++
	answer := make(chan *answerMessage, 1)
	k.waiting[k.next] = answer
	return k.next, answer, nil
}

func (k *calls) drop(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.waiting, id)
}

// answered hands an answer to whoever waits for it, if anyone still does.
func (k *calls) answered(a *answerMessage) {
	k.mu.Lock()
	answer, ok := k.waiting[a.ID]
	delete(k.waiting, a.ID)
	k.mu.Unlock()
	if ok {
		answer <- a
	}
}

// close ends all questions: the connection is gone.
func (k *calls) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for id, answer := range k.waiting {
		close(answer)
		delete(k.waiting, id)
	}
}

// questions answers those of the other side, each in a goroutine of its own,
// so that a slow answer holds up neither states nor health.
type questions struct {
	answer func(ctx context.Context, method string, body json.RawMessage) (any, error)
	busy   chan struct{}
	wait   sync.WaitGroup
}

func newQuestions(answer func(context.Context, string, json.RawMessage) (any, error)) *questions {
	return &questions{answer: answer, busy: make(chan struct{}, questionLimit)}
}

// take answers q over c.
func (s *questions) take(ctx context.Context, c *conn, q callMessage) {
	select {
	case s.busy <- struct{}{}:
	default:
		_ = c.send(message{Answer: &answerMessage{ID: q.ID, Error: fmt.Sprintf("%d questions are being answered already", questionLimit)}})
		return
	}
	s.wait.Go(func() {
		defer func() { <-s.busy }()
		ctx, cancel := context.WithTimeout(ctx, writeLimit)
		defer cancel()
		v, err := s.answer(ctx, q.Method, q.Body)
		_ = c.send(message{Answer: answerOf(q.ID, v, err)})
	})
}

// answerOf is v or err as a message; a value too large to be sent is an error.
func answerOf(id uint64, v any, err error) *answerMessage {
	var body []byte
	if err == nil {
		body, err = json.Marshal(v)
	}
	if err == nil && len(body) > frameLimit/2 {
		err = fmt.Errorf("the answer's %d bytes are over the limit", len(body))
	}
	if err != nil {
		return &answerMessage{ID: id, Error: err.Error()}
	}
	return &answerMessage{ID: id, Body: body}
}
