package monitor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/overview"
	"trivet/internal/part"
)

const (
	drain        = 2 * time.Second // deadline of requests when Run ends
	writeTimeout = 5 * time.Second // of one line of a stream
)

// servePeers answers the other monitors and the nodes.
func (m *Monitor) servePeers(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/points", m.servePoints)
	mux.HandleFunc("GET /v1/stream", m.serveStream)
	mux.HandleFunc("GET /v1/parts", m.serveParts)
	mux.HandleFunc("GET /release/{hash}", m.serveRelease)
	l := tls.NewListener(m.cfg.Peer, mtls.Server(&m.tls, part.Monitor, part.Node))
	return m.serve(ctx, mux, "peers", func(s *http.Server) error { return s.Serve(l) })
}

// serveConsole answers the operator, with whatever handler was set.
func (m *Monitor) serveConsole(ctx context.Context) error {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c := m.console.Load(); c != nil {
			(*c).ServeHTTP(w, r)
			return
		}
		http.Error(w, "the console is not ready yet", http.StatusServiceUnavailable)
	})
	return m.serve(ctx, h, "console", func(s *http.Server) error {
		s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: m.certificate}
		return s.ServeTLS(m.cfg.Console, "", "")
	})
}

// serve runs one server until ctx ends, then drains it.
func (m *Monitor) serve(ctx context.Context, h http.Handler, what string, serve func(*http.Server) error) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(m.cfg.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	})
	err := serve(srv)
	if !stop() {
		<-done
		return nil
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", what, err)
}

// certificate chooses the console's certificate by the name that the browser asks for.
func (m *Monitor) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	certs := m.certs.Load()
	if certs == nil || len(*certs) == 0 {
		return nil, errors.New("no certificate yet")
	}
	for i := range *certs {
		if hello.SupportsCertificate(&(*certs)[i]) == nil {
			return &(*certs)[i], nil
		}
	}
	return &(*certs)[0], nil
}

// own returns this server's ring and the second that a request asks to begin after.
func (m *Monitor) own(r *http.Request) (*Ring, int64, error) {
	s := m.state.Load()
	if s == nil {
		return nil, 0, errors.New("no state yet")
	}
	after := int64(0)
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, 0, errors.New("after must be a Unix time in seconds")
		}
	}
	return m.ring(s.Server), after, nil
}

func (m *Monitor) servePoints(w http.ResponseWriter, r *http.Request) {
	ring, after, err := m.own(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply(w, ring.After(after))
}

// serveStream sends the points after a second, and then each as it comes, as
// one line of JSON (a Frame) each, until the client goes.
func (m *Monitor) serveStream(w http.ResponseWriter, r *http.Request) {
	ring, after, err := m.own(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	control, lines := http.NewResponseController(w), json.NewEncoder(w)
	for {
		next := m.collected.next()
		for _, p := range ring.After(after) {
			f := overview.Frame{Point: p, Events: m.ownEvents(p.Time), Watched: m.ownWatched()}
			if p.Time%processEvery == 0 && p.Time > time.Now().Unix()-2 {
				f.Processes = m.ownProcesses()
			}
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
			if lines.Encode(f) != nil {
				return
			}
			after = p.Time
		}
		if control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-next:
		}
		if last, ok := ring.Last(); ok && last.Time < after-clockStep {
			after = last.Time - 1 // this server's clock was set back
		}
	}
}

func (m *Monitor) ownProcesses() []overview.Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.processes[m.state.Load().Server]
}

func (m *Monitor) serveParts(w http.ResponseWriter, _ *http.Request) {
	s := m.state.Load()
	if s == nil {
		http.Error(w, "no state yet", http.StatusServiceUnavailable)
		return
	}
	reply(w, map[string]any{"server": s.Server, "problems": s.Self().Problems})
}

var releaseHash = regexp.MustCompile(`^[0-9a-f]{64}$`)

// serveRelease gives the archive of a release to a node that missed it.
func (m *Monitor) serveRelease(w http.ResponseWriter, r *http.Request) {
	if _, name, err := mtls.Peer(*r.TLS); err != nil || name != part.Node {
		http.Error(w, "releases are for nodes only", http.StatusForbidden)
		return
	}
	hash := r.PathValue("hash")
	if !releaseHash.MatchString(hash) {
		http.Error(w, "a release is named by 64 hexadecimal digits", http.StatusBadRequest)
		return
	}
	f, err := os.Open(filepath.Join(m.cfg.ReleaseDir, hash+".tar"))
	if err != nil {
		http.Error(w, "this server does not have release "+hash, http.StatusNotFound)
		return
	}
	defer func() { _ = f.Close() }()
	w.Header().Set("Content-Type", "application/x-tar")
	http.ServeContent(w, r, "", time.Time{}, f)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
