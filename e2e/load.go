package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Load sends a steady stream of requests to the site: pages, and one in ten a
// post with a name of its own, so that what was acknowledged can be looked for
// later. Requests that wait do not slow the stream down.
type Load struct {
	Client *http.Client
	Rate   int    // requests a second
	Tag    string // marks this load's posts

	mu     sync.Mutex
	Gets   int // answered with 200
	Failed []Failure
	Acked  []string // texts of acknowledged posts
	Lost   []string // posts that were not acknowledged, with the reason
	acks   []time.Time
}

// inFlight bounds the requests that wait at one time.
const inFlight = 4000

// Run sends until ctx ends, then waits for all answers.
func (l *Load) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(l.Rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, inFlight)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if i%10 == 0 {
				l.post(fmt.Sprintf("%s-%d", l.Tag, i))
			} else {
				l.get([]string{"/", "/api/messages?limit=5", "/style.css"}[i%3])
			}
		})
	}
}

// Failure is a GET that was not answered with 200.
type Failure struct {
	Begun time.Time
	Why   string
}

func (f Failure) String() string { return f.Begun.Format("15:04:05.000 ") + f.Why }

func (l *Load) get(path string) {
	begun := time.Now()
	res, err := l.Client.Get("https://" + Domain + path)
	why := ""
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if err == nil && res.StatusCode != http.StatusOK {
			why = res.Status
		}
	}
	if err != nil {
		why = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if why != "" {
		l.Failed = append(l.Failed, Failure{begun, fmt.Sprintf("%s: %s (after %.1f s)", path, why, time.Since(begun).Seconds())})
		return
	}
	l.Gets++
}

// post is acknowledged by 201 alone. It is sent once: a visitor does not repeat a post.
func (l *Load) post(text string) {
	body, err := json.Marshal(map[string]string{"author": "load", "text": text, "id": key(text)})
	if err != nil {
		panic(err)
	}
	res, err := l.Client.Post("https://"+Domain+"/api/messages", "application/json", bytes.NewReader(body))
	why := ""
	if err == nil {
		_ = res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			why = res.Status
		}
	} else {
		why = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if why != "" {
		l.Lost = append(l.Lost, why)
		return
	}
	l.Acked = append(l.Acked, text)
	l.acks = append(l.acks, time.Now())
}

// Gap is the longest time without an acknowledged post between from and to.
func (l *Load) Gap(from, to time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Longest(l.acks, from, to)
}

// Longest is the longest time between from and to in which none of the moments lies.
func Longest(moments []time.Time, from, to time.Time) time.Duration {
	longest, last := time.Duration(0), from
	for _, t := range slices.SortedFunc(slices.Values(moments), time.Time.Compare) {
		if t.Before(from) || t.After(to) {
			continue
		}
		longest, last = max(longest, t.Sub(last)), t
	}
	return max(longest, to.Sub(last))
}

// Missing returns the acknowledged posts that the site does not have.
func (l *Load) Missing(client *http.Client) ([]string, error) {
	have := map[string]bool{}
	for after := int64(0); ; {
		var page struct {
			Messages []struct {
				Seq  int64  `json:"seq"`
				Text string `json:"text"`
			} `json:"messages"`
		}
		res, err := client.Get(fmt.Sprintf("https://%s/api/messages?limit=200&after=%d", Domain, after))
		if err != nil {
			return nil, err
		}
		err = json.NewDecoder(res.Body).Decode(&page)
		_ = res.Body.Close()
		if err != nil {
			return nil, err
		}
		if len(page.Messages) == 0 {
			break
		}
		for _, m := range page.Messages {
			have[m.Text] = true
			after = max(after, m.Seq)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var missing []string
	for _, t := range l.Acked {
		if !have[t] {
			missing = append(missing, t)
		}
	}
	return missing, nil
}

// key makes a message's key out of its text: the same text is the same message.
func key(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}
