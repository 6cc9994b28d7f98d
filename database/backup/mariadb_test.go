package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"trivet/database/sst"
	"trivet/internal/mtls/mtlstest"
	"trivet/internal/part"
)

// galera is a group of real mariadbds on the loopback.
type galera struct {
	t         *testing.T
	dir       string
	authority *mtlstest.Authority
	nodes     []*mariadb
}

// mariadb is one of them.
type mariadb struct {
	name, dir, host string
	cmd             *exec.Cmd
	ended           chan struct{}
}

func (m *mariadb) socket() string { return m.dir + "/s" }
func (m *mariadb) data() string   { return m.dir + "/data" }

// newGalera starts n nodes; it skips where mariadbd cannot run as we are.
func newGalera(t *testing.T, n int) *galera {
	t.Helper()
	for _, name := range []string{"mariadbd", "mariadb-backup", "mbstream", "mariadb-binlog", "mariadb-dump", "mariadb-install-db"} {
		if program(t.Context(), name).Err != nil {
			t.Skipf("needs %s", name)
		}
	}
	if os.Geteuid() == 0 {
		t.Skip("needs user mysql: mariadbd does not run as root")
	}
	dir, err := os.MkdirTemp("/tmp", "tbk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &galera{t: t, dir: dir, authority: mtlstest.New(t, "foo-bar")}
	g.program()
	for i := range n {
		g.start(i)
	}
	return g
}

// program makes the script by which mariadbd gives and takes full copies.
func (g *galera) program() {
	g.t.Helper()
	if err := copyFile("/proc/self/exe", g.dir+"/trivet"); err != nil {
		g.t.Fatal(err)
	}
}

func (g *galera) write(name, text string, mode os.FileMode) {
	g.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		g.t.Fatal(err)
	}
}

// start starts node i, the first of all alone.
func (g *galera) start(i int) *mariadb {
	t := g.t
	t.Helper()
	m := &mariadb{name: fmt.Sprintf("s%d", i+1), dir: fmt.Sprintf("%s/s%d", g.dir, i+1), host: fmt.Sprintf("127.81.0.%d", i+1), ended: make(chan struct{})}
	id := g.authority.Identity(t, m.name, part.Database)
	g.write(m.dir+"/tls/"+sst.CAFile, string(g.authority.Bundle), 0o600)
	g.write(m.dir+"/tls/"+sst.CertFile, string(id.Certificate), 0o600)
	g.write(m.dir+"/tls/"+sst.KeyFile, string(id.Key), 0o600)
	g.write(m.dir+"/bin/wsrep_sst_trivet", fmt.Sprintf("#!/bin/sh\nexec %s/trivet sst --tls %s/tls \"$@\"\n", g.dir, m.dir), 0o755)
	var others []string
	for _, n := range g.nodes {
		others = append(others, n.host+":45670")
	}
	g.write(m.dir+"/my.cnf", fmt.Sprintf(`[mariadbd]
datadir=%[1]s/data
socket=%[1]s/s
pid_file=%[1]s/pid
skip_networking
skip_name_resolve
performance_schema=OFF
innodb_log_file_size=16M
innodb_buffer_pool_size=64M
innodb_autoinc_lock_mode=2
innodb_snapshot_isolation=ON
innodb_flush_log_at_trx_commit=1
server_id=1
log_bin=bin
log_slave_updates=ON
binlog_format=ROW
sync_binlog=1
character_set_server=utf8mb4
collation_server=utf8mb4_unicode_ci
wsrep_on=ON
wsrep_provider=/usr/lib/galera/libgalera_smm.so
wsrep_cluster_name=foo-bar
wsrep_cluster_address=gcomm://%[3]s
wsrep_node_name=%[2]s
wsrep_node_address=%[4]s
wsrep_gtid_mode=ON
wsrep_gtid_domain_id=77
wsrep_sst_method=trivet
wsrep_sst_receive_address=%[4]s:45690
wsrep_provider_options="gmcast.listen_addr=tcp://%[4]s:45670;ist.recv_addr=%[4]s:45680;gcache.size=16M"
`, m.dir, m.name, strings.Join(others, ","), m.host), 0o644)
	args := []string{"--defaults-file=" + m.dir + "/my.cnf"}
	if len(g.nodes) == 0 {
		install := program(t.Context(), "mariadb-install-db", "--no-defaults", "--datadir="+m.data(), "--force", "--skip-test-db", "--skip-name-resolve",
			"--auth-root-authentication-method=socket", "--auth-root-socket-user=mysql", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=16M")
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("install: %v: %s", err, out)
		}
		args = append(args, "--wsrep-new-cluster")
	} else if err := os.Mkdir(m.data(), 0o700); err != nil {
		t.Fatal(err)
	}
	m.cmd = program(context.Background(), "mariadbd", args...)
	m.cmd.Env = []string{"PATH=" + m.dir + "/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	var log bytes.Buffer
	m.cmd.Stdout, m.cmd.Stderr = &log, &log
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = m.cmd.Wait(); close(m.ended) }()
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			text := log.Bytes()
			t.Logf("%s:\n%s", m.name, text[max(0, len(text)-4<<10):])
		}
	})
	g.nodes = append(g.nodes, m)
	eventually(t, m.name+" is synced", time.Minute, func() bool {
		select {
		case <-m.ended:
			t.Fatalf("%s ended: %s", m.name, log.String())
		default:
		}
		rows, err := query(t.Context(), m.socket(), "SHOW STATUS LIKE 'wsrep_local_state'")
		return err == nil && len(rows) == 1 && rows[0][1] == "4"
	})
	return m
}

func (m *mariadb) kill() {
	_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL)
	<-m.ended
}

// do runs SQL and returns its one value, if it gives one.
func (m *mariadb) do(t *testing.T, sql string, args ...any) string {
	t.Helper()
	rows, err := query(t.Context(), m.socket(), fmt.Sprintf(sql, args...))
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if len(rows) == 0 {
		return ""
	}
	return strings.Join(rows[0], "\t")
}

// at is the last transaction that the node holds.
func (m *mariadb) at(t *testing.T) string {
	t.Helper()
	g, err := parseGTID(m.do(t, "SELECT @@gtid_binlog_pos"))
	if err != nil {
		t.Fatal(err)
	}
	return g.String()
}

func (m *mariadb) uuid(t *testing.T) string {
	t.Helper()
	return strings.Fields(m.do(t, "SHOW STATUS LIKE 'wsrep_local_state_uuid'"))[1]
}

// eventually looks often until holds, against a deadline.
func eventually(t *testing.T, what string, limit time.Duration, holds func() bool) time.Duration {
	t.Helper()
	begun := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(begun) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(begun)
}

// freePort is one that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.81.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// as returns err as an E, or ends the test.
func as[E error](t *testing.T, err error) E {
	t.Helper()
	var e E
	if !errors.As(err, &e) {
		t.Fatalf("err = %v, want a %T", err, e)
	}
	return e
}
