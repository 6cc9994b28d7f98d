package router

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"trivet/database/router/wire"
)

// raw is a client that speaks the protocol by hand.
type raw struct {
	t *testing.T
	net.Conn
	r            *bufio.Reader
	greeting     wire.Greeting
	capabilities uint32
}

const rawCapabilities = wire.ClientMySQL | wire.ClientLongFlag | wire.ClientProtocol41 | wire.ClientTransactions | wire.ClientSecure |
	wire.ClientMultiResults | wire.ClientPSMultiResults | wire.ClientPluginAuth

// greeted is a client that has got a greeting, or an error instead.
func greeted(t *testing.T, address string) (*raw, *wire.Error) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	r := &raw{t: t, Conn: c, r: bufio.NewReader(c)}
	payload, _ := r.packet()
	if e := wire.ParseError(payload); e != nil {
		return r, e
	}
	r.greeting, err = wire.ParseGreeting(payload)
	must(t, err)
	return r, nil
}

// login signs in and returns the last packet.
func (r *raw) login(l wire.Login) []byte {
	r.t.Helper()
	r.capabilities = l.Capabilities
	r.send(1, l.Append(nil))
	payload, sequence := r.packet()
	if scramble, ok := wire.ParseSwitch(payload); ok {
		r.send(sequence+1, wire.Answer(appPassword, scramble))
		payload, _ = r.packet()
	}
	return payload
}

// as is what the app says of itself.
func (r *raw) as(user, password, database string, more uint32) wire.Login {
	l := wire.Login{
		Capabilities: rawCapabilities | more, MaxPacket: 1 << 24, Collation: utf8mb4, User: user,
		Answer: wire.Answer(password, r.greeting.Scramble), Database: database, Plugin: wire.NativePassword,
	}
	if database != "" {
		l.Capabilities |= wire.ClientConnectWithDB
	}
	return l
}

// dial is a client of the app that is signed in, with these further capabilities.
func dial(t *testing.T, address string, more uint32) *raw {
	t.Helper()
	r, e := greeted(t, address)
	if e != nil {
		t.Fatal(e)
	}
	if p := r.login(r.as(appUser, appPassword, appDatabase, more)); !wire.IsOK(p) {
		t.Fatalf("sign in: %v", wire.ParseError(p))
	}
	return r
}

func (r *raw) send(sequence byte, payload []byte) {
	r.t.Helper()
	if _, err := r.Write(wire.Frame(sequence, payload)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) packet() ([]byte, byte) {
	r.t.Helper()
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		r.t.Fatal(err)
	}
	n, sequence := wire.Header(head[:])
	payload := make([]byte, n)
	if _, err := io.ReadFull(r.r, payload); err != nil {
		r.t.Fatal(err)
	}
	return payload, sequence
}

// ask sends a command and returns the packets of its answer.
func (r *raw) ask(c wire.Command, argument string) (reply wire.Reply, packets [][]byte) {
	r.t.Helper()
	r.send(0, append([]byte{byte(c)}, argument...))
	want := byte(1)
	for reply.Expect(c, r.capabilities); !reply.Ended(); want++ {
		payload, sequence := r.packet()
		if sequence != want {
			r.t.Fatalf("command %#x: packet %d has the number %d", c, want, sequence)
		}
		if err := reply.Next(len(payload), payload); err != nil {
			r.t.Fatalf("command %#x: %v: %x", c, err, payload)
		}
		packets = append(packets, payload)
	}
	return reply, packets
}

// good is ask for what must not fail.
func (r *raw) good(c wire.Command, argument string) (wire.Reply, [][]byte) {
	r.t.Helper()
	reply, packets := r.ask(c, argument)
	if reply.Code != 0 {
		r.t.Fatalf("command %#x %q: %v", c, argument, wire.ParseError(packets[len(packets)-1]))
	}
	return reply, packets
}

// one is a result's only value.
func (r *raw) one(q string) string {
	r.t.Helper()
	_, packets := r.good(wire.Query, q)
	row := packets[2]
	if r.capabilities&wire.ClientDeprecateEOF == 0 {
		row = packets[3]
	}
	if row[0] == 0xfb {
		return "NULL"
	}
	return string(row[1:])
}

// ended waits until the router has closed the connection.
func (r *raw) ended() {
	r.t.Helper()
	if b, err := r.r.ReadByte(); err == nil || isTimeout(err) {
		r.t.Fatalf("got %d, %v; want a closed connection", b, err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// number is a statement's or another number as it is sent.
func number(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
