package proxy

import (
	"testing"
	"unsafe"
)

// TestConnIsSmall: a parked connection is little more than its conn.
func TestConnIsSmall(t *testing.T) {
	if got, want := unsafe.Sizeof(conn{}), uintptr(256); got > want {
		t.Errorf("conn takes %d bytes, want at most %d", got, want)
	}
}
