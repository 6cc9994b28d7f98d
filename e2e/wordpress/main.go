// Command wordpress has each single fault befall a lab that serves WordPress,
// while posts are written to it, and looks whether every post that WordPress
// acknowledged is there. WordPress is Debian's package, and knows nothing of
// trivet. The lab is its own, and removed.
package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"trivet/e2e"
)

func main() {
	name := flag.String("lab", "wordpress", "name of the lab")
	prefix := flag.String("prefix", "10.89.0", "first three numbers of its addresses")
	program := flag.String("program", "", "trivet that is tried; empty: the repository's")
	pattern := flag.String("trials", "", "regular expression: the trials whose names match; empty: the single faults of the lab ring")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lab := e2e.New(*name, *prefix)
	lab.Program = *program
	lab.Site = filepath.Join(lab.Root, "e2e", "wordpress", "site.yaml")
	if err := run(ctx, lab, *pattern); err != nil {
		fmt.Fprintln(os.Stderr, "wordpress:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, lab *e2e.Lab, pattern string) (err error) {
	wanted, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	_, _ = lab.Run(ctx, "down") // what an interrupted run left
	defer func() {
		_, e := lab.Run(context.WithoutCancel(ctx), "down")
		err = errors.Join(err, e)
	}()
	if _, err := lab.Up(ctx); err != nil {
		return err
	}
	client, err := lab.Visitor(lab.Floating())
	if err != nil {
		return err
	}
	if err := install(ctx, client); err != nil {
		return err
	}
	var all []error
	for _, t := range e2e.Trials {
		if pattern == "" && t.Long || !wanted.MatchString(t.Name) {
			continue
		}
		f, err := lab.Befall(ctx, t, func(context.Context) (e2e.Work, error) { return newPosts(lab, client), nil })
		fmt.Println(f)
		for _, line := range slices.Concat(f.Wrong, f.Errors) {
			fmt.Println("  " + line)
		}
		if len(f.Wrong) > 0 {
			err = errors.Join(err, fmt.Errorf("%s: %d acknowledged posts are missing or there twice", t.Name, len(f.Wrong)))
		}
		all = append(all, err)
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(all...)
}

// The account that writes the posts. The lab is gone afterwards.
const user, password = "soak", "correct horse battery staple"

// install does what the form of a new WordPress does.
func install(ctx context.Context, client *http.Client) error {
	patient := *client
	patient.Timeout = 2 * time.Minute
	form := url.Values{
		"weblog_title": {"foobar"}, "user_name": {user}, "admin_password": {password}, "admin_password2": {password},
		"admin_email": {"soak@example.com"}, "blog_public": {"0"},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+e2e.Domain+"/wp-admin/install.php?step=2", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := fetch(&patient, req)
	if err == nil && !bytes.Contains(body, []byte("Success!")) {
		err = fmt.Errorf("it answers %.300s", body)
	}
	if err != nil {
		return fmt.Errorf("install WordPress: %w", err)
	}
	return nil
}

func fetch(client *http.Client, req *http.Request) ([]byte, error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return body, err
}

// posts are written by a few authors at a time. It implements e2e.Work.
type posts struct {
	lab    *e2e.Lab
	client *http.Client
	begun  time.Time

	mu     sync.Mutex
	n      int
	acked  map[string]time.Time // by title
	failed map[string]int       // by reason
}

const (
	authors    = 4
	postsEvery = 100 * time.Millisecond
)

func newPosts(lab *e2e.Lab, client *http.Client) *posts {
	return &posts{lab: lab, client: client, begun: time.Now(), acked: map[string]time.Time{}, failed: map[string]int{}}
}

// Run writes posts until ctx ends.
func (p *posts) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range authors {
		wg.Go(func() {
			for ctx.Err() == nil {
				p.post()
				select {
				case <-ctx.Done():
				case <-time.After(postsEvery):
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// post writes one, once.
func (p *posts) post() {
	p.mu.Lock()
	p.n++
	title := fmt.Sprintf("post %d of %d", p.n, p.begun.UnixNano())
	p.mu.Unlock()
	err := p.publish(title)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed[err.Error()]++
		return
	}
	p.acked[title] = time.Now()
}

// call is an XML-RPC call of wp.newPost (codex.wordpress.org/XML-RPC_WordPress_API/Posts).
const call = `<?xml version="1.0"?><methodCall><methodName>wp.newPost</methodName><params>
<param><value><int>1</int></value></param><param><value>%s</value></param><param><value>%s</value></param>
<param><value><struct><member><name>post_title</name><value>%s</value></member><member><name>post_content</name><value>Written while something broke.</value></member>
<member><name>post_status</name><value>publish</value></member></struct></value></param></params></methodCall>`

// publish returns nil if WordPress says that the post is there.
func (p *posts) publish(title string) error {
	req, err := http.NewRequest(http.MethodPost, "https://"+e2e.Domain+"/xmlrpc.php", strings.NewReader(fmt.Sprintf(call, user, password, title)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/xml")
	body, err := fetch(p.client, req)
	if err != nil {
		return err
	}
	var answer struct {
		ID    string `xml:"params>param>value>string"`
		Fault struct {
			Members []struct {
				Text string `xml:"value>string"`
			} `xml:"value>struct>member"`
		} `xml:"fault"`
	}
	if err := xml.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("the answer is no XML: %.100q", body)
	}
	if answer.ID == "" {
		return fmt.Errorf("refused: %v", answer.Fault.Members)
	}
	return nil
}

// Since is the time since the first post.
func (p *posts) Since() time.Duration { return time.Since(p.begun) }

// Acknowledged is how many posts were acknowledged since a moment.
func (p *posts) Acknowledged(since time.Duration) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, at := range p.acked {
		if at.Sub(p.begun) > since {
			n++
		}
	}
	return n
}

// Gap is the longest time without an acknowledged post, at whatever server: the authors do not choose one.
func (p *posts) Gap(from, to time.Duration, _ []string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	var acks []time.Time
	for _, at := range p.acked {
		acks = append(acks, at)
	}
	return e2e.Longest(acks, p.begun.Add(from), p.begun.Add(to))
}

// Tell counts. A post that was not acknowledged may be there.
func (p *posts) Tell(f *e2e.Figures) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.Acked, f.Errors = len(p.acked), e2e.Frequent(p.failed)
	for _, n := range p.failed {
		f.Unknown += n
	}
}

// Audit looks for every acknowledged post in each server's database.
func (p *posts) Audit(ctx context.Context) ([]string, error) {
	var wrong []string
	for _, server := range e2e.Servers {
		have, err := p.titles(ctx, server)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", server, err)
		}
		for title := range p.acked {
			if have[title] != 1 {
				wrong = append(wrong, fmt.Sprintf("%q was acknowledged, and is there %d times on %s", title, have[title], server))
			}
		}
	}
	return wrong, nil
}

func (p *posts) titles(ctx context.Context, server string) (map[string]int, error) {
	db, err := p.lab.Node(server, "foobar")
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(ctx, "SET SESSION wsrep_sync_wait = 1"); err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, "SELECT post_title FROM wp_posts WHERE post_type = 'post' AND post_status = 'publish'")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	have := map[string]int{}
	for rows.Next() {
		var title string
		if err := rows.Scan(&title); err != nil {
			return nil, err
		}
		have[title]++
	}
	return have, rows.Err()
}
