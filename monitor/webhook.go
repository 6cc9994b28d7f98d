package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"trivet/internal/process"
)

const (
	noticeTimeout  = 5 * time.Second // of one attempt
	noticeAttempts = 8               // over about two minutes
	noticeQueue    = 100             // notices that may wait
)

// webhook sends notices, in order, each until it is taken or given up.
type webhook struct {
	log      *slog.Logger
	client   *http.Client
	queue    chan notice
	mine     func() bool                 // whether this server is still the one that sends
	settled  func(n notice, text string) // n was delivered or given up
	returned func(notice)                // it is another server's now
}

func newWebhook(log *slog.Logger) *webhook {
	return &webhook{
		log:    log,
		client: &http.Client{Timeout: noticeTimeout, Transport: &http.Transport{DisableKeepAlives: true}},
		queue:  make(chan notice, noticeQueue),
	}
}

// post queues n and returns true, or false if too many wait.
func (w *webhook) post(n notice) bool {
	select {
	case w.queue <- n:
		return true
	default:
		return false
	}
}

// run sends what is queued until ctx ends.
func (w *webhook) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-w.queue:
			w.deliver(ctx, n)
		}
	}
}

// deliver tries n again and again, ever more slowly.
func (w *webhook) deliver(ctx context.Context, n notice) {
	back := process.Backoff{Min: time.Second, Max: 30 * time.Second}
	var err error
	for range noticeAttempts {
		if !w.mine() {
			w.returned(n)
			return
		}
		if err = w.send(ctx, n); err == nil {
			w.settled(n, fmt.Sprintf("Webhook told: %s %s", n.Alert, n.Status))
			return
		}
		if back.Wait(ctx) != nil {
			return
		}
	}
	w.log.Error("give up webhook", "alert", n.Alert, "status", n.Status, "err", err)
	w.settled(n, fmt.Sprintf("Webhook of %s does not answer: %v", n.Alert, err))
}

// send makes one attempt.
func (w *webhook) send(ctx context.Context, n notice) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode notice: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, n.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "trivet")
	res, err := w.client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err // without the URL, which may hold a secret
	}
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.CopyN(io.Discard, res.Body, 4096)
	if res.StatusCode >= 300 {
		return fmt.Errorf("answer is %s", res.Status)
	}
	return nil
}
