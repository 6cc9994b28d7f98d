package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/pace"
	"trivet/internal/part"
	"trivet/internal/process"
	"trivet/internal/release"
)

// pruneEvery is how often releases that nothing needs any more are looked for;
// long after an apply, so that what it replaced has ended.
const pruneEvery = 5 * time.Minute

// releases sees to it that the declared release is on this server: it was
// pushed here, or a peer that has it gives it.
type releases struct {
	log    *slog.Logger
	source *mtls.Source // node's own identity
	ready  func()       // called when a release became complete

	mu    sync.Mutex
	want  string
	peers []part.Member
	have  string // newest wanted one that is complete
}

// wanted notes what the site declares and who may have it.
func (r *releases) wanted(hash string, peers []part.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want, r.peers = hash, peers
	if complete(hash) {
		r.have = hash
	}
}

// current is the release to serve: the wanted one, or the last that was complete.
func (r *releases) current() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have != r.want && complete(r.want) {
		r.have = r.want
	}
	return r.have
}

func (r *releases) missing() (string, []part.Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.want == "" || r.have == r.want || complete(r.want) {
		return "", nil
	}
	return r.want, r.peers
}

func complete(hash string) bool {
	if hash == "" {
		return true
	}
	_, err := os.Stat(filepath.Join(part.ReleaseDir, hash))
	return err == nil
}

// run fetches what is missing from the peers until ctx ends. The command line
// usually pushes it before it is declared, so a fetch is for a server that was away.
func (r *releases) run(ctx context.Context) {
	back := process.Backoff{Min: time.Second, Max: 15 * time.Second}
	due := time.NewTimer(pace.Next(time.Second))
	defer due.Stop()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-prune.C:
			r.prune()
			continue
		case <-due.C:
		}
		hash, peers := r.missing()
		if hash == "" {
			back.Reset()
			due.Reset(pace.Next(time.Second))
			continue
		}
		r.fetchFrom(ctx, peers, hash)
		due.Reset(back.Next())
	}
}

// fetchFrom gets one release from the first peer that gives it.
func (r *releases) fetchFrom(ctx context.Context, peers []part.Member, hash string) {
	for _, p := range peers {
		if err := r.fetch(ctx, p, hash); err != nil {
			r.log.Warn("fetch release", "from", p.Name, "hash", hash, "err", err)
			continue
		}
		r.log.Info("fetched release", "from", p.Name, "hash", hash)
		r.ready()
		return
	}
}

// fetch gets one release from one peer's monitor, which serves it to nodes.
func (r *releases) fetch(ctx context.Context, from part.Member, hash string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	t := &http.Transport{TLSClientConfig: mtls.Client(r.source, from.Name, part.Monitor), ResponseHeaderTimeout: 10 * time.Second}
	defer t.CloseIdleConnections()
	url := "https://" + net.JoinHostPort(from.Address, strconv.Itoa(part.PortMonitor)) + "/release/" + hash
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return fmt.Errorf("%s: %s", res.Status, text)
	}
	return release.Unpack(res.Body, hash, part.ReleaseDir)
}
