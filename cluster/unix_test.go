package cluster

import (
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
