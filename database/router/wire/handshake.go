package wire

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" // mysql_native_password's own
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// NativePassword is the only way to sign in that is spoken here.
const NativePassword = "mysql_native_password"

// ScrambleSize is how many random bytes a server sends to be answered.
const ScrambleSize = 20

// ErrMalformed is a packet that is not what it should be.
var ErrMalformed = errors.New("malformed packet")

// Greeting is the first packet, from the server (HandshakeV10).
type Greeting struct {
	Version      string
	Thread       uint32
	Scramble     [ScrambleSize]byte
	Capabilities uint32
	Collation    byte
	Status       uint16
}

// NewScramble returns random bytes without zeros.
func NewScramble() (s [ScrambleSize]byte) {
	_, _ = rand.Read(s[:]) // never fails
	for i := range s {
		s[i] = s[i]&0x7f | 1
	}
	return s
}

// Append appends the greeting's payload to b.
func (g Greeting) Append(b []byte) []byte {
	b = append(append(append(b, 10), g.Version...), 0)
	b = binary.LittleEndian.AppendUint32(b, g.Thread)
	b = append(append(b, g.Scramble[:8]...), 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(g.Capabilities))
	b = append(b, g.Collation)
	b = binary.LittleEndian.AppendUint16(b, g.Status)
	b = binary.LittleEndian.AppendUint16(b, uint16(g.Capabilities>>16))
	b = append(b, ScrambleSize+1)
	b = append(b, make([]byte, 10)...)
	b = append(append(b, g.Scramble[8:]...), 0)
	return append(append(b, NativePassword...), 0)
}

// ParseGreeting reads a server's greeting.
func ParseGreeting(payload []byte) (Greeting, error) {
	r := reader{b: payload}
	if r.number(1) != 10 {
		return Greeting{}, ErrMalformed
	}
	g := Greeting{Version: string(r.terminated()), Thread: uint32(r.number(4))}
	copy(g.Scramble[:8], r.take(8))
	r.take(1)
	g.Capabilities = uint32(r.number(2))
	g.Collation = byte(r.number(1))
	g.Status = uint16(r.number(2))
	g.Capabilities |= uint32(r.number(2)) << 16
	r.take(11)
	copy(g.Scramble[8:], r.take(ScrambleSize-8))
	if r.bad {
		return Greeting{}, ErrMalformed
	}
	return g, nil
}

// Login is a client's answer to the greeting (HandshakeResponse41), or what
// COM_CHANGE_USER says anew. Capabilities and MaxPacket are the former's only.
type Login struct {
	Capabilities uint32
	MaxPacket    uint32
	Collation    byte
	User         string
	Answer       []byte // to the scramble
	Database     string
	Plugin       string // that Answer is of
}

// Append appends the payload to b. It is that of a client with
// ClientProtocol41 and ClientSecure; the database is named if
// ClientConnectWithDB says so.
func (l Login) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, l.Capabilities)
	b = binary.LittleEndian.AppendUint32(b, l.MaxPacket)
	b = append(b, l.Collation)
	b = append(b, make([]byte, 23)...)
	b = append(append(b, l.User...), 0)
	b = append(append(b, byte(len(l.Answer))), l.Answer...)
	if l.Capabilities&ClientConnectWithDB != 0 {
		b = append(append(b, l.Database...), 0)
	}
	if l.Capabilities&ClientPluginAuth != 0 {
		b = append(append(b, l.Plugin...), 0)
	}
	return b
}

// ParseLogin reads a client's answer to the greeting. One that asks for TLS,
// or speaks the protocol before 4.1, is malformed.
func ParseLogin(payload []byte) (Login, error) {
	r := reader{b: payload}
	l := Login{Capabilities: uint32(r.number(4)), MaxPacket: uint32(r.number(4)), Collation: byte(r.number(1))}
	r.take(23)
	if l.Capabilities&ClientProtocol41 == 0 || l.Capabilities&ClientSSL != 0 {
		return Login{}, ErrMalformed
	}
	l.User = string(r.terminated())
	switch {
	case l.Capabilities&ClientLenencAuth != 0:
		l.Answer = r.text()
	case l.Capabilities&ClientSecure != 0:
		l.Answer = r.take(r.number(1))
	default:
		l.Answer = r.terminated()
	}
	if l.Capabilities&ClientConnectWithDB != 0 {
		l.Database = string(r.terminated())
	}
	if l.Capabilities&ClientPluginAuth != 0 {
		l.Plugin = string(r.terminated())
	}
	if r.bad {
		return Login{}, ErrMalformed
	}
	return l, nil
}

// ParseChangeUser reads a COM_CHANGE_USER of a client with these capabilities.
func ParseChangeUser(payload []byte, capabilities uint32) (Login, error) {
	r := reader{b: payload}
	if Command(r.number(1)) != ChangeUser {
		return Login{}, ErrMalformed
	}
	l := Login{Capabilities: capabilities, User: string(r.terminated())}
	if capabilities&ClientSecure != 0 {
		l.Answer = r.take(r.number(1))
	} else {
		l.Answer = r.terminated()
	}
	l.Database = string(r.terminated())
	if len(r.b) >= 2 {
		l.Collation = byte(r.number(2))
	}
	if capabilities&ClientPluginAuth != 0 {
		l.Plugin = string(r.terminated())
	}
	if r.bad {
		return Login{}, ErrMalformed
	}
	return l, nil
}

// Switch is the payload by which a server has the client answer by
// NativePassword (AuthSwitchRequest).
func Switch(scramble [ScrambleSize]byte) []byte {
	b := append(append([]byte{headEOF}, NativePassword...), 0)
	return append(append(b, scramble[:]...), 0)
}

// ParseSwitch reads an AuthSwitchRequest; false if payload is another packet
// or asks for another plugin.
func ParseSwitch(payload []byte) (scramble [ScrambleSize]byte, ok bool) {
	rest, ok := bytes.CutPrefix(payload, append([]byte{headEOF}, NativePassword+"\x00"...))
	if !ok || len(rest) < ScrambleSize {
		return scramble, false
	}
	copy(scramble[:], rest)
	return scramble, true
}

// Answer is what a client that knows the password answers to scramble:
// SHA1(password) XOR SHA1(scramble + SHA1(SHA1(password))); nothing if there is no password.
func Answer(password string, scramble [ScrambleSize]byte) []byte {
	if password == "" {
		return nil
	}
	once := sha1.Sum([]byte(password))
	twice := sha1.Sum(once[:])
	mask := sha1.Sum(append(scramble[:len(scramble):len(scramble)], twice[:]...))
	for i := range mask {
		mask[i] ^= once[i]
	}
	return mask[:]
}

// Proves reports, in constant time, whether answer proves the knowledge of password. An empty one never does.
func Proves(answer []byte, password string, scramble [ScrambleSize]byte) bool {
	want := Answer(password, scramble)
	return len(want) > 0 && subtle.ConstantTimeCompare(answer, want) == 1
}
