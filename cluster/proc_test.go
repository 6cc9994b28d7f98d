package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// freeze stops the process as a hypervisor would, or lets it go on.
func (p *proc) freeze(t testing.TB, yes bool) {
	t.Helper()
	sig := syscall.SIGCONT
	if yes {
		sig = syscall.SIGSTOP
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// listeners are the TCP ports and unix sockets (as -1) that the process listens on; proc_net(5).
func (p *proc) listeners(t testing.TB) []int {
	t.Helper()
	own := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:[") {
			own[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	var ports []int
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.cmd.Process.Pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" || !own[f[9]] {
				continue
			}
			port, err := strconv.ParseInt(f[1][strings.LastIndexByte(f[1], ':')+1:], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, int(port))
		}
	}
	return append(ports, p.unixListeners(t, own)...)
}

func (p *proc) unixListeners(t testing.TB, own map[string]bool) []int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 6 && f[3] == "00010000" && own[f[6]] {
			found = append(found, -1)
		}
	}
	return found
}
