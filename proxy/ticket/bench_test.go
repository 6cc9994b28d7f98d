package ticket

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The visitors of BenchmarkHandshake are another process, so that this one's
// processor time is the server's alone, with its garbage collection and its
// part of the kernel's work.
func TestMain(m *testing.M) {
	if to := os.Getenv("TRIVET_TEST_VISIT"); to != "" {
		visit(to, os.Getenv("TRIVET_TEST_RESUME") != "", os.Getenv("TRIVET_TEST_CURVE"))
	}
	os.Exit(m.Run())
}

// visit makes handshakes until the server has had enough.
func visit(address string, resume bool, curve string) {
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "www.foobar.com"}
	if n, err := strconv.Atoi(curve); err == nil {
		cfg.CurvePreferences = []tls.CurveID{tls.CurveID(n)}
	}
	cfg.ClientSessionCache = forgetful{}
	if resume {
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	b := make([]byte, 1)
	for {
		c, err := tls.Dial("tcp", address, cfg)
		if err != nil {
			os.Exit(0)
		}
		if _, err := io.ReadFull(c, b); err != nil {
			os.Exit(0)
		}
		_ = c.NetConn().Close()
	}
}

// forgetful is of a visitor that takes tickets, as browsers do, and comes for the first time.
type forgetful struct{}

func (forgetful) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (forgetful) Put(string, *tls.ClientSessionState)        {}

type scene struct {
	name   string
	resume bool
	curve  tls.CurveID // 0: what the client prefers, the hybrid
	gc     int
	change func(*tls.Config) // of a clone, if not nil
}

func BenchmarkHandshake(b *testing.B) {
	a := newAuthority(b)
	for _, s := range []scene{
		{"full", false, 0, 100, nil},
		{"full, GOGC 400", false, 0, 400, nil},
		{"full, no ticket", false, 0, 100, func(c *tls.Config) { c.SessionTicketsDisabled = true }},
		{"full, configuration for each client", false, 0, 100, func(c *tls.Config) {
			of := c.Clone()
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return of.Clone(), nil }
		}},
		{"full, X25519", false, tls.X25519, 100, nil},
		{"full, P-256", false, tls.CurveP256, 100, nil},
		{"resumed", true, 0, 100, nil},
		{"resumed, GOGC 400", true, 0, 400, nil},
		{"resumed, X25519", true, tls.X25519, 100, nil},
	} {
		b.Run(s.name, func(b *testing.B) { s.run(b, a.door(fresh(), "www.foobar.com")) })
	}
}

func (s scene) run(b *testing.B, d *Door) {
	defer debug.SetGCPercent(debug.SetGCPercent(s.gc))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	visitors := exec.CommandContext(b.Context(), os.Args[0])
	visitors.Env = append(os.Environ(), "TRIVET_TEST_VISIT="+l.Addr().String())
	if s.resume {
		visitors.Env = append(visitors.Env, "TRIVET_TEST_RESUME=1")
	}
	if s.curve != 0 {
		visitors.Env = append(visitors.Env, "TRIVET_TEST_CURVE="+strconv.Itoa(int(s.curve)))
	}
	if err := visitors.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = visitors.Wait() }()
	defer func() { _ = visitors.Process.Kill() }()
	cfg := d.TLS()
	if s.change != nil {
		cfg = cfg.Clone()
		s.change(cfg)
	}
	one := func() tls.ConnectionState {
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		t := tls.Server(c, cfg)
		if _, err := t.Write([]byte{1}); err != nil {
			b.Fatal(err)
		}
		_, _ = c.Read(make([]byte, 1)) // until the visitor has closed
		return t.ConnectionState()
	}
	one()
	b.ReportAllocs()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var each []time.Duration
	var start [2]time.Duration
	start[0], start[1] = cpu(b)
	collected := collector()
	for b.Loop() {
		before := thread(b)
		if got := one().DidResume; got != s.resume {
			b.Fatalf("got resumed %v, want %v", got, s.resume)
		}
		each = append(each, thread(b)-before)
	}
	user, system := cpu(b)
	b.ReportMetric((collector()-collected)*1e6/float64(b.N), "gc-us/op")
	b.ReportMetric(micro(user-start[0])/float64(b.N), "user-us/op")
	b.ReportMetric(micro(system-start[1])/float64(b.N), "system-us/op")
	// What the best fiftieth cost is what it costs on a quiet machine, or
	// nearly, but for the collector's own threads.
	slices.Sort(each)
	b.ReportMetric(micro(each[len(each)/50]), "best-us/op")
}

// collector is the processor time of the garbage collector, in seconds.
func collector() float64 {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	runtime.GC() // the figure is of the last cycle's end
	metrics.Read(s)
	return s[0].Value.Float64()
}

func micro(d time.Duration) float64 { return float64(d) / 1000 }

// thread is the processor time of this thread, to the nanosecond.
func thread(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// cpu is the processor time of this process.
func cpu(b *testing.B) (user, system time.Duration) {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
}
