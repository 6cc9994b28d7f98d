package account

import (
	"errors"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"testing"
)

func TestEnsureAndRemove(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes a user")
	}
	const name = "trivet-testaccount"
	t.Cleanup(func() { _ = Remove(name) })
	for _, want := range []bool{true, false} {
		made, err := Ensure(name)
		if err != nil || made != want {
			t.Fatalf("Ensure: got %t, %v, want %t", made, err, want)
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil || g.Name != name {
		t.Errorf("its group: got %v, %v, want %s", g, err, name)
	}
	busy := exec.Command("cat")
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	busy.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: 65534}}
	end, err := busy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	if err := Remove(name); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove while a process runs as it: got %v, want %v", err, ErrInUse)
	}
	_ = end.Close()
	_ = busy.Wait()
	for range 2 {
		if err := Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if there, err := Exists(name); there || err != nil {
		t.Errorf("Exists after Remove: got %t, %v, want false", there, err)
	}
	if _, err := user.LookupGroup(name); err == nil {
		t.Error("its group is left")
	}
}

func TestProgramMissing(t *testing.T) {
	if err := run("no-such-program"); err == nil {
		t.Error("run a missing program: got no error")
	}
}
