package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"

	"trivet/internal/atomicfile"
	"trivet/internal/mtls/mtlstest"
)

// Each member of these tests is a process of its own, so that it can be killed
// like a server: the test binary runs itself with this variable set.
const memberEnv = "TRIVET_TEST_MEMBER"

func TestMain(m *testing.M) {
	if conf := os.Getenv(memberEnv); conf != "" {
		runMember(conf)
		return
	}
	os.Exit(m.Run())
}

// request is one call to a member, answer what came of it.
type request struct {
	Op, Key, Data string
	Prev          int64
}

type answer struct {
	Data   string            `json:",omitempty"`
	Rev    int64             `json:",omitempty"`
	OK     bool              `json:",omitempty"`
	Values map[string]string `json:",omitempty"`
	Err    string            `json:",omitempty"`
	Kind   string            `json:",omitempty"` // of the error: quorum, missing, conflict
}

func runMember(conf string) {
	var c Config
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		panic(err)
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := context.WithCancel(context.Background())
	k := New(c)
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.Run(ctx) })
	var w watched
	wg.Go(func() { k.Watch(ctx, "w/", w.set) })
	in := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			panic(err)
		}
		_ = out.Encode(serve(ctx, k, &w, r))
	}
	cancel()
	wg.Wait()
}

type watched struct {
	mu     sync.Mutex
	values map[string]string
}

func (w *watched) set(m map[string]Value) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.values = map[string]string{}
	for k, v := range m {
		w.values[k] = string(v.Data)
	}
}

func serve(ctx context.Context, k *Cluster, w *watched, r request) (a answer) {
	var err error
	switch r.Op {
	case "get":
		var v Value
		v, err = k.Get(ctx, r.Key)
		a.Data, a.Rev = string(v.Data), v.Revision
	case "put":
		a.Rev, err = k.Put(ctx, r.Key, []byte(r.Data))
	case "swap":
		a.Rev, err = k.Swap(ctx, r.Key, r.Prev, []byte(r.Data))
	case "delete":
		err = k.Delete(ctx, r.Key)
	case "announce":
		err = k.Announce(ctx, r.Key, []byte(r.Data))
	case "acquire":
		a.OK, err = k.Acquire(ctx, r.Key, []byte(r.Data))
	case "holds":
		a.OK = k.Holds(r.Key)
	case "valid":
		a.OK = k.LeaseValid()
	case "quorum":
		a.OK = k.Quorum()
	case "leader":
		m := k.current()
		a.OK = m != nil && m.leads()
	case "resign":
		err = k.ResignLeader(ctx)
	case "check":
		err = k.Check(ctx)
	case "alarm":
		err = raise(ctx, k.current().etcd.Server)
	case "watched":
		w.mu.Lock()
		a.Values = w.values
		w.mu.Unlock()
	}
	if err != nil {
		a.Err, a.Kind = err.Error(), kind(err)
	}
	return a
}

// raise has the cluster believe that the server's store is full.
func raise(ctx context.Context, s *etcdserver.EtcdServer) error {
	_, err := s.Alarm(ctx, &etcdserverpb.AlarmRequest{
		Action: etcdserverpb.AlarmRequest_ACTIVATE, MemberID: uint64(s.MemberID()), Alarm: etcdserverpb.AlarmType_NOSPACE,
	})
	return err
}

func kind(err error) string {
	switch {
	case errors.Is(err, ErrNoQuorum):
		return "quorum"
	case errors.Is(err, ErrMissing):
		return "missing"
	case errors.Is(err, ErrConflict):
		return "conflict"
	}
	return "other"
}

// proc is a member's process.
type proc struct {
	conf Config
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
}

func (p *proc) start(t testing.TB) {
	t.Helper()
	conf, err := json.Marshal(p.conf)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), memberEnv+"="+string(conf))
	log, err := os.OpenFile(p.conf.Dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	p.cmd.Stderr = log
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// kill is a power cut.
func (p *proc) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// stop ends the process in order.
func (p *proc) stop(t testing.TB) {
	t.Helper()
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("stop %s: %v", p.conf.Name, err)
	}
	p.cmd = nil
}

func (p *proc) call(t testing.TB, r request) answer {
	t.Helper()
	line, _ := json.Marshal(r)
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatalf("ask %s: %v", p.conf.Name, err)
	}
	if !p.out.Scan() {
		t.Fatalf("ask %s to %s: it is gone", p.conf.Name, r.Op)
	}
	var a answer
	if err := json.Unmarshal(p.out.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// must calls and wants no error.
func (p *proc) must(t testing.TB, r request) answer {
	t.Helper()
	a := p.call(t, r)
	if a.Err != "" {
		t.Fatalf("%s %s on %s: %s", r.Op, r.Key, p.conf.Name, a.Err)
	}
	return a
}

// eventually waits until ok, and returns how long it took.
func eventually(t testing.TB, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(start) > within {
			t.Fatalf("got not %s within %v", what, within)
		}
		<-tick.C
	}
	return time.Since(start)
}

// issue writes an identity of the part with the given serial number to the files of c. On loopback, all
// connections leave from 127.0.0.1.
func issue(t testing.TB, a *mtlstest.Authority, c Config, partName string, serial int64, lifetime time.Duration) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: partName}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, m := range c.Members {
		if m.Name == c.Name {
			template.IPAddresses = append(template.IPAddresses, net.ParseIP(m.Address))
		}
	}
	pair := a.Issue(t, template, lifetime)
	for name, data := range map[string][]byte{
		c.Cert: pair.Certificate,
		c.Key:  pair.Key,
		c.CA:   a.Bundle,
	} {
		if err := atomicfile.Write(name, data, 0o600, -1, -1); err != nil {
			t.Fatal(err)
		}
	}
}

// three returns three members on 127.0.0.1 to 3, not started, with identities of a common authority.
func three(t testing.TB) ([]*proc, *mtlstest.Authority) {
	t.Helper()
	root, dir, port := mtlstest.New(t, "test"), t.TempDir(), freePort(t)
	var members []Member
	for i := range 3 {
		members = append(members, Member{Name: fmt.Sprintf("s%d", i+1), Address: fmt.Sprintf("127.0.0.%d", i+1)})
	}
	var procs []*proc
	for _, m := range members {
		f := func(name string) string { return filepath.Join(dir, m.Name+name) }
		conf := Config{
			Name: m.Name, Members: members, Dir: f(""), Port: port, Token: "test",
			Cert: f(".crt"), Key: f(".key"), CA: f(".ca"),
		}
		issue(t, root, conf, "node", 2, time.Hour)
		p := &proc{conf: conf}
		procs = append(procs, p)
		t.Cleanup(p.kill)
		t.Cleanup(func() {
			log, _ := os.ReadFile(conf.Dir + ".log")
			if bytes.Contains(log, []byte("DATA RACE")) || bytes.Contains(log, []byte("panic:")) {
				t.Errorf("%s raced or panicked", conf.Name)
			}
			if t.Failed() {
				t.Logf("log of %s:\n%s", conf.Name, log)
			}
		})
	}
	return procs, root
}

func startThree(t testing.TB) ([]*proc, *mtlstest.Authority) {
	t.Helper()
	procs, root := three(t)
	for _, p := range procs {
		p.start(t)
	}
	for _, p := range procs {
		eventually(t, 20*time.Second, p.conf.Name+" with a quorum", func() bool { return p.call(t, request{Op: "quorum"}).OK })
	}
	return procs, root
}

// freePort finds a port that is free on all three addresses.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// roles splits the members into the leader and the two others.
func roles(t testing.TB, procs []*proc) (leader *proc, others []*proc) {
	t.Helper()
	eventually(t, 10*time.Second, "a leader", func() bool {
		leader, others = nil, nil
		for _, p := range procs {
			if p.cmd == nil {
				continue
			}
			if p.call(t, request{Op: "leader"}).OK {
				leader = p
			} else {
				others = append(others, p)
			}
		}
		return leader != nil
	})
	return leader, others
}
