package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/netns/netnstest"
	"trivet/internal/part"
)

// TestMain lets the test's own program be what a lab runs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "lab-init":
			if err := Init(context.Background(), os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		case "test-node", "node":
			testNode()
		case "test-stranger":
			testStranger()
		case "test-orphan":
			never := make(chan os.Signal, 1)
			signal.Notify(never, syscall.SIGUSR1) // or Go would call it a deadlock
			<-never
		}
	}
	os.Exit(m.Run())
}

// testNode stands for node: it starts a process that outlives it, says its
// host's name and its own pid to who connects, echoes, and on SIGINT leaves a
// word on the server's disk.
func testNode() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT)
	orphan := filepath.Join(part.RunDir, "orphan")
	if _, err := os.Stat(orphan); err != nil {
		cmd := exec.Command("/proc/self/exe", "test-orphan")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		check(cmd.Start())
		check(os.WriteFile(orphan, []byte(strconv.Itoa(cmd.Process.Pid)), 0o644))
	}
	l, err := net.Listen("tcp4", ":8080")
	check(err)
	go func() {
		for {
			c, err := l.Accept()
			check(err)
			go func() {
				name, _ := os.Hostname()
				_, _ = fmt.Fprintf(c, "%s %d\n", name, os.Getpid())
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	<-stop
	check(os.WriteFile(filepath.Join(part.LibDir, "clean"), nil, 0o644))
	os.Exit(0)
}

// testStranger prints what a lab says to one who is not root.
func testStranger() {
	check(syscall.Setuid(65534))
	_, err := Create("labtest2", netip.MustParsePrefix("10.99.0.0/24"), servers)
	fmt.Println(err)
	_, err = Open(testLab)
	fmt.Println(err)
	os.Exit(0)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	testLab    = "labtest"
	testSubnet = "10.82.0.0/24"
)

var servers = []string{"s1", "s2", "s3"}

// bench is a lab under test.
type bench struct {
	*testing.T
	lab *Lab
	exe string
}

// newBench makes the lab; what is left of an earlier test that was killed goes first.
func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	exe, err := os.Executable()
	must(t, err)
	if old, err := Open(testLab); err == nil {
		must(t, old.Remove(t.Context(), false))
	}
	before := traces(t)
	l, err := Create(testLab, netip.MustParsePrefix(testSubnet), servers)
	must(t, err)
	must(t, l.setProgram(exe, "test-node"))
	t.Cleanup(func() {
		must(t, l.Remove(context.Background(), false))
		if diff := cmp.Diff(before, traces(t)); diff != "" {
			t.Errorf("left behind by Remove (-before +after):\n%s", diff)
		}
		must(t, l.Remove(context.Background(), false))
	})
	return &bench{t, l, exe}
}

// traces is all that a lab of the test's name may leave on this machine.
func traces(t *testing.T) []string {
	t.Helper()
	found := []string{}
	interfaces, err := net.Interfaces()
	must(t, err)
	for _, i := range interfaces {
		if strings.HasPrefix(i.Name, "tv-labtest") || strings.HasPrefix(i.Name, "trivet-labtest") {
			found = append(found, "link "+i.Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, testLab) {
			found = append(found, "mount "+line)
		}
	}
	for _, pattern := range []string{
		"/run/netns/trivet-labtest-*", filepath.Join(Root, testLab),
		"/sys/fs/cgroup/*/trivet-labtest-*", "/sys/fs/cgroup/trivet-labtest-*",
	} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		found = append(found, files...)
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, c := range commands {
		line, _ := os.ReadFile(c)
		if words := string(line); strings.Contains(words, "\x00test-node") || strings.Contains(words, "\x00test-orphan") {
			found = append(found, c)
		}
	}
	return found
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startAll starts all servers at once and waits until each answers.
func (b *bench) startAll() {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	for i, s := range servers {
		wg.Go(func() { errs[i] = b.lab.Start(b.Context(), s, b.exe) })
	}
	wg.Wait()
	must(b.T, errors.Join(errs...))
	for _, s := range servers {
		b.up(s)
	}
}

// greet connects from here and returns the connection and what it greeted with.
func (b *bench) greet(server string, timeout time.Duration) (net.Conn, string, error) {
	d := net.Dialer{Timeout: timeout}
	conn, err := d.DialContext(b.Context(), "tcp", netip.AddrPortFrom(b.lab.Address(server), 8080).String())
	if err != nil {
		return nil, "", err
	}
	b.Cleanup(func() { _ = conn.Close() })
	must(b.T, conn.SetReadDeadline(time.Now().Add(timeout)))
	line, err := bufio.NewReader(conn).ReadString('\n')
	return conn, strings.TrimSpace(line), err
}

// up waits until the server's program answers, and returns a connection to it and its pid inside.
func (b *bench) up(server string) (conn net.Conn, pid string) {
	b.Helper()
	b.await(server+" to answer", func() bool {
		c, hello, err := b.greet(server, 300*time.Millisecond)
		if err != nil {
			return false
		}
		name, id, _ := strings.Cut(hello, " ")
		if name != server {
			b.Fatalf("host name at %s's address: got %q, want %q", server, name, server)
		}
		conn, pid = c, id
		return true
	})
	return conn, pid
}

func (b *bench) await(what string, done func() bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	if err := until(ctx, func() (bool, error) { return done(), nil }); err != nil {
		b.Fatalf("wait for %s: %v", what, err)
	}
}

func (b *bench) wantState(server string, want State) {
	b.Helper()
	got, err := b.lab.State(server)
	must(b.T, err)
	if got != want {
		b.Errorf("state of %s: got %s, want %s", server, got, want)
	}
}

// wantEcho makes sure that a connection works both ways.
func (b *bench) wantEcho(conn net.Conn) {
	b.Helper()
	must(b.T, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err := io.WriteString(conn, "ping")
	must(b.T, err)
	got := make([]byte, 4)
	_, err = io.ReadFull(conn, got)
	must(b.T, err)
	if string(got) != "ping" {
		b.Errorf("echo: got %q, want %q", got, "ping")
	}
}

// wantSilence makes sure that nothing comes over conn: no data, no FIN, no RST.
func (b *bench) wantSilence(conn net.Conn) {
	b.Helper()
	must(b.T, conn.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	n, err := conn.Read(make([]byte, 1))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		b.Errorf("read from a silent server: got %d bytes and error %v, want a time-out", n, err)
	}
}

// wantUnreachable makes sure that a new connection is not even refused.
func (b *bench) wantUnreachable(server string) {
	b.Helper()
	_, _, err := b.greet(server, 500*time.Millisecond)
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.EHOSTUNREACH) && !isTimeout(err) {
		b.Errorf("connect to %s: got %v, want a time-out", server, err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// outside returns the id on this machine of the server's process that has the pid inside.
func (b *bench) outside(server, pid string) int {
	b.Helper()
	all, err := b.lab.Processes(server)
	must(b.T, err)
	for _, p := range all {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		for line := range strings.Lines(string(status)) {
			if ids := strings.Fields(line); len(ids) == 3 && ids[0] == "NSpid:" && ids[2] == pid {
				return p
			}
		}
	}
	return 0
}

func (b *bench) orphan(server string) string {
	b.Helper()
	pid, err := os.ReadFile(filepath.Join(b.lab.Dir(server, Run), "orphan"))
	must(b.T, err)
	return string(pid)
}

// peer connects from one server to another.
func (b *bench) peer(from, to string) net.Conn {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
	defer cancel()
	conn, err := netnstest.Dial(ctx, b.lab.Namespace(from), "tcp", netip.AddrPortFrom(b.lab.Address(to), 8080))
	must(b.T, err)
	b.Cleanup(func() { _ = conn.Close() })
	must(b.T, conn.SetReadDeadline(time.Now().Add(5*time.Second)))
	_, err = bufio.NewReader(conn).ReadString('\n')
	must(b.T, err)
	return conn
}

// setProgram makes the servers run program instead of trivet's node from their next start on.
func (l *Lab) setProgram(program ...string) error {
	l.Program = program
	return l.save()
}
