package database

import (
	"testing"

	"trivet/site"
)

func TestPool(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		declared int
		server   uint64
		want     int
	}{
		{0, 0, 64},
		{0, gib, 64},
		{0, 8 * gib, 128},
		{0, 64 * gib, 1024},
		{32, 64 * gib, 32},
		{500, gib, 500},
	} {
		if got := pool(site.Database{Memory: c.declared}, c.server); got != c.want {
			t.Errorf("declared %d, %d bytes: got %d MiB, want %d", c.declared, c.server, got, c.want)
		}
	}
}

func TestServerMemory(t *testing.T) {
	one, three := serverMemory(1), serverMemory(3)
	if one < 64*mebibyte || three != one/3 {
		t.Errorf("got %d for one server and %d for each of three", one, three)
	}
}
