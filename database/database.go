// Package database keeps the site's data on all three servers: it supervises
// MariaDB with Galera on this one, and takes part in deciding which node
// starts first, which joins, and which takes the writes.
//
// The logic is in two pure functions: decide (what becomes of this server's
// mariadbd) and elect (who is the writer). The rest observes and obeys.
// Invariants: no two nodes found a group; none starts alone while another may
// hold newer data; a history other than the agreed one is neither started nor
// overwritten; the writer changes only by agreement. mariadbd outlives the
// supervisor: a new one adopts it.
package database

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"trivet/database/sst"
	"trivet/internal/atomicfile"
	"trivet/internal/metric"
	"trivet/internal/part"
	"trivet/internal/process"
)

// Paths are the files and folders of the database on a server. Empty ones get
// their defaults from package part.
type Paths struct {
	Data     string // mariadbd's data folder; the folder above it must exist
	TLS      string // folder of the identity's files
	Settings string // option file
	Run      string // folder of the SST program's script
	Records  string // folder of process records
	Log      string // mariadbd's output
	Socket   string // mariadbd's unix socket
	Provider string // Galera's library
}

func (p Paths) withDefaults() Paths {
	for _, d := range []struct {
		to *string
		is string
	}{
		{&p.Data, part.DatabaseDir},
		{&p.TLS, part.LibDir + "/database-tls"},
		{&p.Settings, part.LibDir + "/database.cnf"},
		{&p.Run, part.LibDir + "/database-sst"}, // not below /run, which is often mounted noexec,
		{&p.Records, part.RunDir + "/process"},
		{&p.Log, part.LogDir + "/mariadbd.log"},
		{&p.Socket, part.SQLSocket},
		{&p.Provider, "/usr/lib/galera/libgalera_smm.so"},
	} {
		if *d.to == "" {
			*d.to = d.is
		}
	}
	return p
}

// Config is what New needs.
type Config struct {
	Server     string
	Log        *slog.Logger
	Metrics    *metric.Registry // may be nil
	Executable string           // path of the trivet binary, which user mysql can run as the SST program
	Paths      Paths
	Shared     int // how many servers share this machine's memory; 0: one

	// Report publishes what this server says of its database. Called on change only.
	Report func(part.DatabaseMember)
	// ElectWriter makes writer the agreed one with epoch+1 if the agreed epoch is still epoch.
	ElectWriter func(ctx context.Context, epoch int64, writer string) error
	// PlanWriter makes next the planned writer, or nobody, if the agreed epoch is still epoch.
	PlanWriter func(ctx context.Context, epoch int64, next string) error
	// Open is how many transactions still go through this server's router to its database, once none begins any more.
	Open func(context.Context) (int64, error)
	// Agree agrees on next, but for its Writer and Epoch, if all but those is still as in previous.
	Agree func(ctx context.Context, previous, next part.DatabaseRole) error
	// Remember changes what the cluster remembers of the database. change may be called more than once.
	Remember func(ctx context.Context, change func(*part.DatabaseRecord)) error
}

// Database is the supervisor of one server's mariadbd. It implements part.Part.
type Database struct {
	cfg    Config
	paths  Paths
	log    *slog.Logger
	kick   chan struct{} // there is something new to look at
	room   func(dir string) disk
	meters *meters
	memory uint64 // of this server, in bytes

	mu      sync.Mutex
	state   part.State
	applied bool // the files of state are written
	renewed bool // the identity's files changed since mariadbd read them
	status  part.DatabaseMember
	problem error     // nil: healthy
	told    time.Time // when problem was found
	seen    view      // at that time
	process *process.Process
	halted  bool             // Stop was called
	restart *process.Process // that an operator wants to be ended and started again; nil: none

	loop // of Run only
}

// New returns a supervisor that does nothing before Run.
func New(cfg Config) *Database {
	return &Database{
		cfg: cfg, paths: cfg.Paths.withDefaults(), log: cfg.Log, kick: make(chan struct{}, 1), room: freeSpace,
		meters: newMeters(cfg.Metrics), memory: serverMemory(cfg.Shared), problem: errNoState,
	}
}

var errNoState = errors.New("no state yet")

// Apply writes the identity, the option file and the SST script of s.
func (d *Database) Apply(_ context.Context, s part.State) error {
	if len(s.Identity.Key) == 0 || len(s.Bundle) == 0 {
		return errors.New("apply database: no identity yet")
	}
	d.mu.Lock()
	old, applied := d.state, d.applied
	d.mu.Unlock()
	renewed := !applied || !sameIdentity(old, s)
	if err := d.write(s, renewed); err != nil {
		return fmt.Errorf("apply database: %w", err)
	}
	d.mu.Lock()
	d.state, d.applied = s, true
	d.renewed = d.renewed || renewed && applied
	d.mu.Unlock()
	d.wake()
	return nil
}

func sameIdentity(a, b part.State) bool {
	return string(a.Identity.Certificate) == string(b.Identity.Certificate) &&
		string(a.Identity.Key) == string(b.Identity.Key) && string(a.Bundle) == string(b.Bundle)
}

func (d *Database) write(s part.State, renewed bool) error {
	owner, err := process.Credential(part.UserMySQL)
	if err != nil {
		return fmt.Errorf("find user %s (is mariadb-server installed?): %w", part.UserMySQL, err)
	}
	uid, gid := int(owner.Uid), int(owner.Gid)
	options, err := settings(s.Site, s.Server, s.Members, d.paths, pool(s.Site.Database, d.memory))
	if err != nil {
		return err
	}
	if err := d.folders(uid, gid); err != nil {
		return err
	}
	if renewed {
		for name, data := range map[string][]byte{sst.CAFile: s.Bundle, sst.CertFile: s.Identity.Certificate, sst.KeyFile: s.Identity.Key} {
			if err := atomicfile.Write(filepath.Join(d.paths.TLS, name), data, 0o600, uid, gid); err != nil {
				return err
			}
		}
	}
	return writeIfChanged(d.paths.Settings, options, 0o644)
}

// folders makes the folders, and the script that mariadbd runs for a full copy.
func (d *Database) folders(uid, gid int) error {
	p := d.paths
	router := gid
	if g, err := process.Credential(part.UserRouter); err == nil {
		router = int(g.Gid)
	}
	for _, f := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{p.Data, 0o700, uid, gid},
		{p.TLS, 0o700, uid, gid},
		{p.Run, 0o755, 0, 0},
		{p.Records, 0o700, 0, 0},
		{filepath.Dir(p.Log), 0o755, -1, -1},
		{filepath.Dir(p.Settings), 0o755, -1, -1},
		{filepath.Dir(p.Socket), 0o750, uid, router},
	} {
		if err := makeFolder(f.path, f.mode, f.uid, f.gid); err != nil {
			return err
		}
	}
	script := fmt.Sprintf("#!/bin/sh\nexec %s sst --tls %s \"$@\"\n", shellQuote(d.cfg.Executable), shellQuote(p.TLS))
	return writeIfChanged(filepath.Join(p.Run, "wsrep_sst_trivet"), []byte(script), 0o755)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// makeFolder makes a folder, or gives an existing one that mode and owner; uid -1 leaves those alone.
func makeFolder(path string, mode os.FileMode, uid, gid int) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if uid < 0 {
		return nil
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return os.Chown(path, uid, gid)
}

func writeIfChanged(name string, data []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(name); err == nil && string(old) == string(data) {
		return nil
	}
	return atomicfile.Write(name, data, mode, -1, -1)
}

// Check is nil while the node is synced, and else says what it is doing or needs.
func (d *Database) Check(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if age := time.Since(d.told); d.problem == nil && age > frozenAfter {
		return fmt.Errorf("was last looked at %.0f s ago", age.Seconds())
	}
	return d.problem
}

// Status is what was last reported.
func (d *Database) Status() part.DatabaseMember {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

func (d *Database) wake() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}
