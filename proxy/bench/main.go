// Command bench measures trivet's engine beside nginx, HAProxy, Caddy and
// net/http's ReverseProxy, in one run on one machine: each proxy has one worker
// on the first core; this program, which plays the visitors and the target
// behind the proxy, has the second. It prints what each spends for a request.
//
// The comparison is as fair as we know how to make it: no peer writes a log,
// all keep connections on both sides, all use the same certificate, TLS 1.3,
// X25519 and AES-128-GCM; each of their settings is in the folder peers. A
// round of one peer follows a round of another, and of all rounds the median
// counts. CPU is what the kernel has charged to the peer's processes. The
// kernel's own work for the loopback is part of it, the same for all.
//
// A goal that is missed is a figure like any other; only a measurement that
// could not be made is an error. The program is also two of the peers: the
// roles engine and net/http.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limit bounds a whole run.
const limit = 30 * time.Minute

// Roles of this program as a peer.
const (
	roleEngine  = "engine"
	roleNetHTTP = "net-http"
)

func main() {
	err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(args) > 0 {
		switch args[0] {
		case roleEngine:
			return serveEngine(ctx, args[1:])
		case roleNetHTTP:
			return serveNetHTTP(ctx, args[1:])
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done after %s", limit))
	defer cancel()
	return compare(ctx, args)
}

// bench is one run.
type bench struct {
	loop       *loop
	dir        string // of settings and files, removed at the end
	rounds     int
	again      int           // times that a disturbed measurement is repeated
	full, calm time.Duration // of one measurement: as fast as can be, and at a share of that
	scenes     []scene
	peers      []peer
	profiles   string // folder; empty: none
	port       int    // the first that is used
	identity
}

// compare runs the scenes and prints what they have found.
func compare(ctx context.Context, args []string) error {
	b := &bench{}
	asJSON, asMarkdown := false, false
	scenes, peers, builds := "", "", ""
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&scenes, "scene", "", "`scenes` to run, comma between (default all): "+sceneNames())
	flags.StringVar(&peers, "peer", "", "`peers` to run, comma between (default all): "+peerNames())
	flags.StringVar(&builds, "build", "", "`paths` of other builds of this program, comma between, whose engine is a peer too")
	flags.BoolVar(&asJSON, "json", false, "print JSON instead of a table")
	flags.BoolVar(&asMarkdown, "markdown", false, "print Markdown instead of a table")
	b.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := b.choose(scenes, peers, builds); err != nil {
		return err
	}
	report, err := b.run(ctx)
	switch {
	case err != nil:
		return err
	case asJSON:
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(report)
	case asMarkdown:
		return report.markdown(os.Stdout)
	}
	return report.print(os.Stdout)
}

// flags are those that say how is measured.
func (b *bench) flags(f *flag.FlagSet) {
	f.IntVar(&b.rounds, "rounds", 5, "measurements of each peer in each scene, of which the median counts")
	f.IntVar(&b.again, "again", 2, "how often a measurement is made again that other processes disturbed")
	f.DurationVar(&b.full, "full", 800*time.Millisecond, "length of a measurement at full load")
	f.DurationVar(&b.calm, "calm", 700*time.Millisecond, "length of a measurement at 70 % of that load")
	f.IntVar(&b.port, "port", 19000, "first of the `ports` of this machine that are used")
	f.StringVar(&b.profiles, "profile", "", "`folder` for a profile of trivet in each scene")
}

// choose finds what is named.
func (b *bench) choose(scenes, peers, builds string) (err error) {
	if b.scenes, err = chooseScenes(scenes); err != nil {
		return err
	}
	if b.peers, err = choosePeers(peers); err != nil {
		return err
	}
	for path := range strings.SplitSeq(builds, ",") {
		if path != "" {
			b.peers = append(b.peers, peer{name: filepath.Base(path), command: own(path, roleEngine)})
		}
	}
	return nil
}

// run prepares the machine and plays all scenes.
func (b *bench) run(ctx context.Context) (Report, error) {
	var report Report
	if err := keepToCore(); err != nil {
		return report, err
	}
	if err := allowDescriptors(); err != nil {
		return report, err
	}
	threads()
	var err error
	if report.Machine, err = machine(ctx, b.peers); err != nil {
		return report, err
	}
	if b.dir, err = os.MkdirTemp("", "bench-balancer-"); err != nil {
		return report, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if err := b.prepare(); err != nil {
		return report, err
	}
	for _, s := range b.scenes {
		out, err := b.play(ctx, s)
		if err != nil {
			return report, err
		}
		report.Scenes = append(report.Scenes, out)
	}
	return report, nil
}

// Ports, from the first one of the run on: of the target, plain and by TLS, and of the first peer.
const (
	targetPort = iota
	targetPortTLS
	peerPort
)

// prepare makes certificate, files and the target.
func (b *bench) prepare() error {
	var err error
	if b.identity, err = newIdentity(b.dir); err != nil {
		return err
	}
	if err := writeFiles(b.dir); err != nil {
		return err
	}
	if b.loop, err = newLoop(); err != nil {
		return err
	}
	if err := b.loop.listen(b.port+targetPort, nil); err != nil {
		return err
	}
	return b.loop.listen(b.port+targetPortTLS, b.server)
}

// settings of a peer, the i-th, for a scene.
func (b *bench) settings(s scene, p peer, i int) settings {
	out := settings{
		shape: s.shape, Name: p.name, Dir: b.dir, Port: b.port + peerPort + i, Target: b.port + targetPort,
		Certificate: b.certificate, Key: b.key, Bundle: b.bundle,
	}
	if s.shape.TLSTarget {
		out.Target = b.port + targetPortTLS
	}
	if s.shape.Static {
		out.Files = filesDir(b.dir)
	}
	if b.profiles != "" {
		out.Profile = filepath.Join(b.profiles, s.name+".pprof")
	}
	return out
}

// keepToCore puts this program on the second core, by starting it anew: a core
// is a thread's, and of threads there are several by now.
func keepToCore() error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return fmt.Errorf("look at the cores: %w", err)
	}
	if set.Count() == 1 {
		return nil
	}
	if !set.IsSet(0) || !set.IsSet(1) {
		return fmt.Errorf("needs the first two cores of the machine")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	set.Zero()
	set.Set(1)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("keep to a core: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return syscall.Exec(self, os.Args, os.Environ())
}

// needDescriptors is for the idle connections, at both ends of a proxy, and the rest.
const needDescriptors = 2*idleConnections + 2000

// allowDescriptors lets this program and the peers have as many as there may be.
func allowDescriptors() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("look at the limit of descriptors: %w", err)
	}
	if l.Max < needDescriptors {
		return fmt.Errorf("needs %d descriptors, %d are allowed", needDescriptors, l.Max)
	}
	l.Cur = l.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("allow %d descriptors: %w", l.Max, err)
	}
	return nil
}

// say tells who waits what is going on.
func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }

func peerNames() string {
	var names []string
	for _, p := range peers {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choosePeers returns the peers that are named, comma between; empty: all.
func choosePeers(names string) ([]peer, error) {
	if names == "" {
		return peers, nil
	}
	var out []peer
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(peers, func(p peer) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no peer %q: there are %s", name, peerNames())
		}
		out = append(out, peers[i])
	}
	return out, nil
}
