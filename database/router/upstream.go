package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"trivet/database/router/wire"
)

// profile is what a connection to mariadbd is made with and cannot change
// later. Only clients of the same profile can use it.
type profile struct {
	capabilities uint32
	collation    byte
}

// upstream is one connection to a mariadbd, signed in as the app's user.
type upstream struct {
	profile
	net.Conn
	raw        syscall.RawConn // of the socket below, to look at it without reading
	remote     bool
	server     string
	generation uint64
	series     uint64
	thread     uint32
	database   string // the current one
	since      time.Time
}

// credentials are the app's user and its passwords, the one in force first.
type credentials struct {
	user      string
	passwords []string
}

const (
	errAccessDenied = 1045 // ER_ACCESS_DENIED_ERROR
	small           = 1 << 10
	exchangeTimeout = 2 * time.Second // of an exchange that no client asked for
)

// signIn makes an upstream of c, which mariadbd has just accepted. If it
// refuses the password it hangs up, so that another is for another connection.
func signIn(c net.Conn, p profile, user, password, database string) (*upstream, string, error) {
	if err := c.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return nil, "", err
	}
	u := &upstream{profile: p, Conn: c, database: database}
	payload, _, err := readPacket(c)
	if err != nil {
		return nil, "", fmt.Errorf("read greeting: %w", err)
	}
	if e := wire.ParseError(payload); e != nil {
		return nil, "", e
	}
	g, err := wire.ParseGreeting(payload)
	if err != nil {
		return nil, "", fmt.Errorf("read greeting: %w", err)
	}
	u.thread = g.Thread
	l := wire.Login{
		Capabilities: p.capabilities | wire.ClientPluginAuth, MaxPacket: wire.MaxPayload, Collation: p.collation,
		User: user, Answer: wire.Answer(password, g.Scramble), Database: database, Plugin: wire.NativePassword,
	}
	if database != "" {
		l.Capabilities |= wire.ClientConnectWithDB
	}
	if _, err := c.Write(wire.Frame(1, l.Append(nil))); err != nil {
		return nil, "", err
	}
	return u, g.Version, signedIn(c, password)
}

// signedIn reads the end of the handshake.
func signedIn(c net.Conn, password string) error {
	for {
		payload, sequence, err := readPacket(c)
		if err != nil {
			return fmt.Errorf("sign in: %w", err)
		}
		if e := wire.ParseError(payload); e != nil {
			return e
		}
		if wire.IsOK(payload) {
			return nil
		}
		scramble, ok := wire.ParseSwitch(payload)
		if !ok {
			return fmt.Errorf("sign in: %w", wire.ErrMalformed)
		}
		if _, err := c.Write(wire.Frame(sequence+1, wire.Answer(password, scramble))); err != nil {
			return err
		}
	}
}

// readPacket reads one short packet and nothing more.
func readPacket(c io.Reader) (payload []byte, sequence byte, err error) {
	var head [wire.HeaderSize]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, 0, err
	}
	n, sequence := wire.Header(head[:])
	if n == 0 || n > 64<<10 {
		return nil, 0, wire.ErrMalformed
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c, payload)
	return payload, sequence, err
}

// reports has the server say what each statement changes in the session.
const reports = "SET session_track_system_variables='*',session_track_schema=ON,session_track_state_change=ON"

// reading is what connections for reads only have besides.
const reading = ",wsrep_sync_wait=1,tx_read_only=1"

// exec sends a command that is answered by an OK or an error, under a deadline.
func (u *upstream) exec(c wire.Command, argument string) error {
	if err := u.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return err
	}
	if _, err := u.Write(wire.Frame(0, append([]byte{byte(c)}, argument...))); err != nil {
		return err
	}
	payload, _, err := readPacket(u)
	if err != nil {
		return err
	}
	if e := wire.ParseError(payload); e != nil {
		return e
	}
	if !wire.IsOK(payload) {
		return wire.ErrMalformed
	}
	return u.SetDeadline(time.Time{})
}

// prepare gives text to the server and reads the answer.
func (u *upstream) prepare(text []byte) (id uint32, err error) {
	if err := u.SetDeadline(time.Now().Add(exchangeTimeout)); err != nil {
		return 0, err
	}
	if _, err := u.Write(wire.Frame(0, append([]byte{byte(wire.StmtPrepare)}, text...))); err != nil {
		return 0, err
	}
	var reply wire.Reply
	for reply.Expect(wire.StmtPrepare, u.capabilities); !reply.Ended(); {
		payload, _, err := readPacket(u)
		if err != nil {
			return 0, err
		}
		if e := wire.ParseError(payload); e != nil {
			return 0, e
		}
		if err := reply.Next(len(payload), payload); err != nil {
			return 0, err
		}
	}
	return reply.Statement, u.SetDeadline(time.Time{})
}

// alive reports whether the other side has neither closed the connection nor
// said something that nobody asked for: the end of an idle one.
func (u *upstream) alive() bool {
	var n int
	var err error
	var b [1]byte
	if e := u.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	}); e != nil {
		return false
	}
	return n <= 0 && errors.Is(err, unix.EAGAIN)
}

// cut closes the socket below: closing TLS first would wait for a peer that
// may be gone.
func (u *upstream) cut() { _ = hard(u.Conn).Close() }

// wear sets what the server has to report, and the limits of reads.
func (u *upstream) wear(reads bool) error {
	q := reports
	if reads {
		q += reading
	}
	return u.exec(wire.Query, q)
}

// clean makes the session as new for the next client.
func (u *upstream) clean() error {
	if err := u.exec(wire.ResetConnection, ""); err != nil {
		return err
	}
	return u.wear(false)
}

// raw is the socket under c.
func rawOf(c net.Conn) (syscall.RawConn, error) {
	s, ok := hard(c).(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("look at %T: it is no socket", c)
	}
	return s.SyscallConn()
}

// connect reaches the mariadbd at p and signs in, with the former password if
// the one in force is not known there yet.
func (r *Router) connect(ctx context.Context, a aim, p place, k kind, pr profile, database string) (*upstream, error) {
	cr := *r.credentials.Load()
	var last error
	for _, password := range cr.passwords {
		c, err := r.dial(ctx, a, p, k)
		if err != nil {
			return nil, err
		}
		u, err := r.dress(c, k, pr, cr.user, password, database)
		if err == nil {
			u.server, u.generation, u.remote, u.since = p.server, a.generation, !p.local, time.Now()
			return u, nil
		}
		_ = hard(c).Close()
		last = err
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != errAccessDenied {
			break
		}
	}
	if last == nil {
		last = errors.New("the app's account has no password yet")
	}
	return nil, last
}

// dress signs in on c and sets what every session of ours has.
func (r *Router) dress(c net.Conn, k kind, pr profile, user, password, database string) (*upstream, error) {
	u, version, err := signIn(c, pr, user, password, database)
	if err != nil {
		return nil, err
	}
	r.version.Store(&version)
	if u.raw, err = rawOf(c); err != nil {
		return nil, err
	}
	return u, u.wear(k == kindRead)
}

// passwordsOf are those that are known, each once.
func passwordsOf(all ...string) []string {
	return slices.Compact(slices.DeleteFunc(all, func(p string) bool { return p == "" }))
}
