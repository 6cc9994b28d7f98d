package console

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"sync"
	"time"
)

const (
	cookieName = "__Host-trivet"
	lifetime   = 12 * time.Hour
	nonceSize  = 16
	headSize   = 8 + nonceSize // when it ends, and a nonce
)

// sessions makes and verifies session cookies: expiry (Unix seconds, 8 bytes),
// nonce, HMAC-SHA256 of both; in base64url. Nothing is kept on the server, so
// that a session is valid on all three; it ends by its time, or when the
// browser forgets it.
type sessions struct{ key func() []byte }

// begin gives the browser a session. It returns false while there is no key.
//
// The cookie is Lax, not Strict: a link to the console from a chat must find
// the operator signed in. No GET changes anything, and POSTs from other
// origins are refused before they come here.
func (s sessions) begin(w http.ResponseWriter) bool {
	key := s.key()
	if len(key) == 0 {
		return false
	}
	value := make([]byte, headSize, headSize+sha256.Size)
	binary.BigEndian.PutUint64(value, uint64(time.Now().Add(lifetime).Unix()))
	_, _ = rand.Read(value[8:])
	value = append(value, sign(key, value)...)
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: base64.RawURLEncoding.EncodeToString(value), Path: "/",
		MaxAge: int(lifetime / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	return true
}

// end makes the browser forget its session.
func (sessions) end(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// of returns when the request's session ends; false if it has none that is valid.
func (s sessions) of(r *http.Request) (time.Time, bool) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return time.Time{}, false
	}
	value, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil || len(value) != headSize+sha256.Size {
		return time.Time{}, false
	}
	key := s.key()
	if len(key) == 0 || !hmac.Equal(value[headSize:], sign(key, value[:headSize])) {
		return time.Time{}, false
	}
	end := time.Unix(int64(binary.BigEndian.Uint64(value)), 0)
	return end, time.Now().Before(end)
}

func sign(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("trivet console session\x00"))
	h.Write(data)
	return h.Sum(nil)
}

// Attempts to sign in that one address may make in one span of time.
const (
	attemptLimit = 10
	attemptSpan  = time.Minute
)

// limiter counts attempts by address, anew in each span of time.
type limiter struct {
	mu    sync.Mutex
	until time.Time
	count map[string]int
}

// allow reports whether the address may make one more attempt.
func (l *limiter) allow(address string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.count == nil || now.After(l.until) {
		l.count, l.until = map[string]int{}, now.Add(attemptSpan)
	}
	l.count[address]++
	return l.count[address] <= attemptLimit
}
