package wire

import (
	"encoding/binary"
	"math/bits"
)

// What a byte may be part of.
const (
	isToken  = 1 << iota // RFC 9110, 5.6.2
	isPath               // of a target before "?", see ValidPath
	isQuery              // of a target after "?"
	isHost               // of a registered name, see ValidHost
	isHex                // 0-9, a-f, A-F
	isQuoted             // inside a quoted string: qdtext (RFC 9110, 5.6.4)
)

var classes = classify()

// lower has ASCII's capitals in lower case and every other byte as it is.
var lower = fold()

const (
	digits = "0123456789"
	small  = "abcdefghijklmnopqrstuvwxyz"
	alnum  = digits + small + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func classify() (t [256]uint8) {
	mark := func(class uint8, all string) {
		for i := range len(all) {
			t[all[i]] |= class
		}
	}
	mark(isToken, alnum+"!#$%&'*+-.^_`|~")
	// pchar of RFC 3986, "/", and what browsers send without encoding it.
	mark(isPath, alnum+"-._~!$&'()*+,;=:@%/"+"[]^`{|}")
	mark(isQuery, alnum+"-._~!$&'()*+,;=:@%/"+"[]^`{|}"+"?\\")
	mark(isHost, alnum+"-._")
	mark(isHex, digits+"abcdefABCDEF")
	for c := range 256 {
		if c == '\t' || c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			t[c] |= isQuoted
		}
	}
	return t
}

func fold() (t [256]byte) {
	for c := range t {
		t[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			t[c] = byte(c) | 0x20
		}
	}
	return t
}

// run is how many bytes at the beginning of b are of the class.
func run(b []byte, class uint8) int {
	for i, c := range b {
		if classes[c]&class == 0 {
			return i
		}
	}
	return len(b)
}

// all says that b is not empty and its bytes are of the class.
func all(b []byte, class uint8) bool {
	return len(b) > 0 && run(b, class) == len(b)
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// control is the index, from i on, of the first byte in b that may not be in a
// field's value (RFC 9110, 5.5): a control byte other than a tab; else len(b).
func control(b []byte, i int) int {
	for i+8 <= len(b) {
		m := controls(binary.LittleEndian.Uint64(b[i:]))
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) / 8
		if b[i] != '\t' {
			return i
		}
		i++
	}
	for i < len(b) && (b[i] >= ' ' && b[i] != 0x7f || b[i] == '\t') {
		i++
	}
	return i
}

// controls has the high bit set of the first byte in x that is below a space or
// DEL. Bits above it mean nothing.
func controls(x uint64) uint64 {
	del := x ^ 0x7f*ones
	return ((x-' '*ones)&^x | (del-ones)&^del) & highs
}

// trim takes spaces and tabs from both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// same compares without regard to the case of ASCII letters. s is in lower case.
func same(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower[c] != s[i] {
			return false
		}
	}
	return true
}

// equal compares without regard to the case of ASCII letters.
func equal(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if lower[c] != lower[b[i]] {
			return false
		}
	}
	return true
}

// element cuts the first element off a comma-separated list. It is empty where
// two commas follow each other, which RFC 9110, 5.6.1.2, allows.
func element(list []byte) (first, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}
