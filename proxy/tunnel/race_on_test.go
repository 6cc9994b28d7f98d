//go:build race

package tunnel

// racing says that the race detector is on, under which pools forget.
const racing = true
