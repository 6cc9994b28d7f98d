package node

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"trivet/cluster"
	"trivet/internal/part"
	"trivet/internal/release"
	"trivet/internal/worker"
)

// ControlSocket is the node's control socket inside part.RunDir. Only root may
// connect; the command line speaks HTTP and JSON over it.
const ControlSocket = "control.sock"

// Status is what a node says of its server.
type Status struct {
	Server        string        `json:"server"`
	Version       string        `json:"version"`
	Build         string        `json:"build"` // of node's binary; see package binary
	Revision      int64         `json:"revision"`
	Quorum        bool          `json:"quorum"`
	Cluster       string        `json:"cluster,omitempty"` // why this server's member of the cluster is not well, if it is not
	AddressHolder string        `json:"address_holder"`
	Writer        string        `json:"writer"`
	Maintenance   bool          `json:"maintenance,omitempty"` // every visitor gets the maintenance page
	Parts         []PartStatus  `json:"parts"`
	Members       []part.Member `json:"members"`

	Workers map[string]worker.Status `json:"workers"` // balancer, web, router and monitor
}

// PartStatus is the health of one part on one server.
type PartStatus struct {
	Name     string    `json:"name"`
	Healthy  bool      `json:"healthy"`
	Problem  string    `json:"problem,omitempty"` // why it is not, and what to do
	Since    time.Time `json:"since"`
	Revision int64     `json:"revision"` // of the site that is in force
}

// SignIn is a one-time sign-in to the console.
type SignIn struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// token is how a sign-in is kept in the cluster, under the hash of its token.
type token struct {
	Expires time.Time `json:"expires"`
}

const signInLife = 15 * time.Minute

// serveControl answers on the control socket until ctx ends.
func (n *Node) serveControl(ctx context.Context) error {
	path := filepath.Join(part.RunDir, ControlSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace control socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("listen on control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("protect control socket: %w", err)
	}
	srv := &http.Server{Handler: n.routes(), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

func (n *Node) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", answer(func(r *http.Request) (any, error) { return n.Status(r.Context()), nil }))
	mux.HandleFunc("GET /v1/declared", answer(func(*http.Request) (any, error) { return n.declared(), nil }))
	mux.HandleFunc("POST /v1/signin", answer(func(r *http.Request) (any, error) { return n.signIn(r.Context()) }))
	mux.HandleFunc("POST /v1/plan", answer(n.handlePlan))
	mux.HandleFunc("POST /v1/apply", answer(n.handleApply))
	mux.HandleFunc("PUT /v1/drained/{server}", answer(n.handleDrain(true)))
	mux.HandleFunc("DELETE /v1/drained/{server}", answer(n.handleDrain(false)))
	mux.HandleFunc("POST /v1/database/force", answer(n.handleForce))
	mux.HandleFunc("PUT /v1/release/{hash}", answer(n.handleRelease))
	mux.HandleFunc("PUT /v1/database/writer", answer(n.handleSwitch))
	mux.HandleFunc("POST /v1/database/restart", answer(n.handleRestart))
	mux.HandleFunc("POST /v1/database/shell", answer(n.handleShell))
	mux.HandleFunc("POST /v1/database/password", answer(n.handleRotate))
	mux.HandleFunc("GET /v1/database/password", answer(func(*http.Request) (any, error) { return n.rotation(), nil }))
	mux.HandleFunc("GET /v1/inspect/{part}", answer(n.handleInspect))
	mux.HandleFunc("GET /v1/logs", n.handleLogs)
	mux.HandleFunc("GET /v1/backup/key", answer(n.handleBackupKey))
	mux.Handle("/v1/backup/", backupOrders())
	return mux
}

// failure is an answer that is not 200.
type failure struct {
	Error string `json:"error"`
}

// answer turns a function into an HTTP handler that speaks JSON.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			code := http.StatusBadRequest
			if errors.Is(err, cluster.ErrNoQuorum) {
				code = http.StatusServiceUnavailable
			}
			if errors.Is(err, cluster.ErrConflict) {
				code = http.StatusConflict
			}
			w.WriteHeader(code)
			v = failure{Error: err.Error()}
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

// Status reports this server's parts and what the cluster agrees on.
func (n *Node) Status(ctx context.Context) Status {
	s := n.state()
	st := Status{
		Server: s.Server, Version: n.cfg.Version, Build: n.cfg.Build, Workers: map[string]worker.Status{}, Revision: s.Revision, Quorum: s.Quorum,
		AddressHolder: s.AddressHolder, Writer: s.Database.Writer, Members: s.Members,
		Maintenance: s.Site != nil && s.Site.Balancer.Maintenance.On,
	}
	if err := n.cluster.Check(ctx); err != nil {
		st.Cluster = err.Error()
	}
	for name, w := range n.workers {
		st.Workers[name] = w.Status()
	}
	for _, name := range part.Names {
		problem, since := n.health(name)
		st.Parts = append(st.Parts, PartStatus{
			Name: name, Healthy: problem == "", Problem: problem, Since: since, Revision: n.drivers[name].revision(),
		})
	}
	return st
}

// signIn makes a one-time sign-in, valid on all three consoles.
func (n *Node) signIn(ctx context.Context) (SignIn, error) {
	raw := rand.Text() + rand.Text()
	hash := sha256.Sum256([]byte(raw))
	t := token{Expires: time.Now().Add(signInLife)}
	data, err := json.Marshal(t)
	if err != nil {
		return SignIn{}, err
	}
	if _, err := n.cluster.Put(ctx, prefixToken+hex.EncodeToString(hash[:]), data); err != nil {
		return SignIn{}, fmt.Errorf("make sign-in: %w", err)
	}
	return SignIn{Token: raw, Expires: t.Expires}, nil
}

// redeem consumes a sign-in; it is true once for each token.
func (n *Node) redeem(ctx context.Context, hash string) (bool, error) {
	v, err := n.cluster.Get(ctx, prefixToken+hash)
	if errors.Is(err, cluster.ErrMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var t token
	if err := json.Unmarshal(v.Data, &t); err != nil {
		return false, err
	}
	// Marking it used is the one step of which only one of three consoles can win.
	_, err = n.cluster.Swap(ctx, prefixToken+hash, v.Revision, []byte(`{}`))
	if errors.Is(err, cluster.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return time.Now().Before(t.Expires), n.cluster.Delete(ctx, prefixToken+hash)
}

// answerWorker serves the questions of workers.
func (n *Node) answerWorker(ctx context.Context, method string, body json.RawMessage) (any, error) {
	if method != CallRedeem {
		return nil, fmt.Errorf("method %q is not known", method)
	}
	var hash string
	if err := json.Unmarshal(body, &hash); err != nil || len(hash) != 2*sha256.Size {
		return nil, errors.New("that is not the hash of a sign-in token")
	}
	return n.redeem(ctx, hash)
}

// CallRedeem is the question of the monitor's worker whether a sign-in, given
// by the hex SHA-256 of its token, is valid; the answer is a bool and consumes it.
const CallRedeem = "redeem"

// handleRelease takes a release's tar and unpacks it.
func (n *Node) handleRelease(r *http.Request) (any, error) {
	hash := r.PathValue("hash")
	if err := release.Unpack(r.Body, hash, part.ReleaseDir); err != nil {
		return nil, err
	}
	n.kick()
	return struct{}{}, nil
}

// handleApply declares a new revision of the site.
func (n *Node) handleApply(r *http.Request) (any, error) {
	var d Declared
	if err := json.NewDecoder(io.LimitReader(r.Body, 8<<20)).Decode(&d); err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	if d.Site == nil {
		return nil, fmt.Errorf("read declaration: %w", errNoSite)
	}
	return n.declare(r.Context(), d)
}

// declare agrees on d as the next revision. Declaring what is declared already changes nothing.
func (n *Node) declare(ctx context.Context, d Declared) (Declared, error) {
	v, err := n.cluster.Get(ctx, keyDeclared)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return d, fmt.Errorf("declare site: %w", err)
	}
	var old Declared
	if err == nil {
		if err := json.Unmarshal(v.Data, &old); err != nil {
			return d, fmt.Errorf("declare site: %w", err)
		}
		if same(old, d) {
			return old, nil
		}
		if err := Renamed(old.Site, d.Site); err != nil {
			return d, fmt.Errorf("declare site: %w", err)
		}
	}
	d.Revision, d.At = old.Revision+1, time.Now().UTC()
	data, err := json.Marshal(d)
	if err != nil {
		return d, err
	}
	if _, err := n.cluster.Swap(ctx, keyDeclared, v.Revision, data); err != nil {
		return d, fmt.Errorf("declare site: %w", err)
	}
	return d, n.remember(ctx, d)
}

// remember keeps revision d in the history, without its secrets, and forgets the oldest.
func (n *Node) remember(ctx context.Context, d Declared) error {
	const keep = 50
	d.Environment = ""
	data, err := json.Marshal(d)
	if err != nil {
		return err
	}
	if _, err := n.cluster.Put(ctx, prefixHistory+strconv.FormatInt(d.Revision, 10), data); err != nil {
		return fmt.Errorf("keep history: %w", err)
	}
	if d.Revision > keep {
		return n.cluster.Delete(ctx, prefixHistory+strconv.FormatInt(d.Revision-keep, 10))
	}
	return nil
}

func same(a, b Declared) bool {
	a.Revision, a.At, b.Revision, b.At = 0, time.Time{}, 0, time.Time{}
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
