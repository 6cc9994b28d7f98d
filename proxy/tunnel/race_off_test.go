//go:build !race

package tunnel

const racing = false
