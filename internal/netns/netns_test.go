package netns_test

import (
	"errors"
	"net"
	"os"
	"testing"

	"trivet/internal/netns"
	"trivet/internal/netns/netnstest"
)

func TestDo(t *testing.T) {
	const name = "tfw-netns"
	netnstest.New(t, name)
	before, inside, after := interfaces(t), 0, 0
	if err := netns.Do(name, func() error { inside = interfaces(t); return nil }); err != nil {
		t.Fatal(err)
	}
	after = interfaces(t)
	if inside != 1 || before < 2 || after != before {
		t.Errorf("interfaces before, inside, after = %d, %d, %d; want many, 1, the same", before, inside, after)
	}
	mine := errors.New("mine")
	if err := netns.Do(name, func() error { return mine }); !errors.Is(err, mine) {
		t.Errorf("Do returned %v, want f's error", err)
	}
}

func TestDoMissing(t *testing.T) {
	err := netns.Do("tfw-none", func() error { t.Error("f ran"); return nil })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Do in a missing namespace: %v, want %v", err, os.ErrNotExist)
	}
}

func interfaces(t *testing.T) int {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Error(err)
	}
	return len(all)
}
