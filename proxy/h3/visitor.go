package h3

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

var errFull = errors.New("too many connections")

// transport refuses connections beyond the limit, and has addresses proven when many come.
func (s *Server) transport(c net.PacketConn) *quic.Transport {
	tr := &quic.Transport{
		Conn: c,
		VerifySourceAddress: func(net.Addr) bool {
			return s.begun.add(time.Now()) > s.cfg.Unproven || s.open.Load() > int64(s.rules.Load().Connections)/2
		},
		ConnContext: func(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
			if s.open.Add(1) > int64(s.rules.Load().Connections) {
				s.open.Add(-1)
				return nil, errFull
			}
			context.AfterFunc(ctx, func() { s.open.Add(-1) })
			return s.meet(ctx), nil
		},
	}
	if len(s.cfg.Secret) > 0 {
		reset, token := quic.StatelessResetKey(s.derive("reset")), quic.TokenGeneratorKey(s.derive("token"))
		tr.StatelessResetKey, tr.TokenGeneratorKey = &reset, &token
	}
	return tr
}

// derive makes a key for one purpose of Config.Secret.
func (s *Server) derive(purpose string) [32]byte {
	h := hmac.New(sha256.New, s.cfg.Secret)
	h.Write([]byte("trivet http/3 " + purpose))
	return [32]byte(h.Sum(nil))
}

// rate counts within the current second.
type rate struct {
	mu     sync.Mutex
	second int64
	n      int
}

func (r *rate) add(now time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t := now.Unix(); t != r.second {
		r.second, r.n = t, 0
	}
	r.n++
	return r.n
}

// visitor is one connection.
type visitor struct {
	conn   *quic.Conn
	server *Server
	most   int // requests that may be answered at a time
	mu     sync.Mutex
	active int
	credit int // for requests that are reset before they are answered
	timer  *time.Timer
}

// resets is how many requests a visitor may reset that asks for nothing else:
// each answer that it takes whole makes up for one.
const resets = 200

type visitorKey struct{}

// welcome is called once for each connection.
func (s *Server) welcome(ctx context.Context, c *quic.Conn) context.Context {
	v := &visitor{conn: c, server: s, most: 2 * s.cfg.Streams, credit: resets}
	v.timer = time.AfterFunc(s.rules.Load().Idle, func() { v.leave(http3.ErrCodeNoError, "idle") })
	context.AfterFunc(ctx, func() { v.timer.Stop() })
	go s.met(ctx, c) // no longer than the handshake
	return context.WithValue(ctx, visitorKey{}, v)
}

func (v *visitor) leave(code http3.ErrCode, why string) {
	_ = v.conn.CloseWithError(quic.ApplicationErrorCode(code), why) // closed already: as well
}

// begin counts a request; false: the visitor has reset so many that are still
// being answered that it is sent away.
func (v *visitor) begin() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.active >= v.most {
		go v.leave(http3.ErrCodeExcessiveLoad, "too many requests at a time")
		return false
	}
	v.active++
	v.timer.Stop()
	return true
}

// While the process is crowded, a visitor has few requests answered at a time,
// and has to take something within crowdedStill.
const (
	few          = 8
	crowdedStill = 2 * time.Second
)

func (s *Server) crowded() bool { return s.cfg.Crowded != nil && s.cfg.Crowded() }

// many says that more than a few requests are being answered.
func (v *visitor) many() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.active > few
}

// end is called when a request was answered, whole or not.
func (v *visitor) end(whole bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if whole {
		v.credit = min(v.credit+1, resets)
	} else if v.credit--; v.credit == 0 {
		go v.leave(http3.ErrCodeExcessiveLoad, "too many requests reset")
	}
	if v.active--; v.active == 0 && v.conn.Context().Err() == nil {
		v.timer.Reset(v.server.rules.Load().Idle)
	}
}
