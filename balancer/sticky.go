package balancer

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"trivet/internal/part"
	"trivet/proxy"
	"trivet/proxy/wire"
	"trivet/site"
)

// sticky is the cookie by which a visitor stays with a server. Its value says
// which, signed, so that nobody can choose; it is the same for all visitors of
// a server, and so tells nothing of a visitor. The zero value is none.
type sticky struct {
	name   string
	values map[string][]byte // by server: the cookie's value
	fields map[string][]byte // by server: the whole Set-Cookie
}

func newSticky(s part.State) sticky {
	name, secret := s.Site.Balancer.Sticky, s.Secrets[part.SecretSticky]
	if name == "" || secret == "" {
		return sticky{}
	}
	k := sticky{name: name, values: map[string][]byte{}, fields: map[string][]byte{}}
	for _, m := range s.Members {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write([]byte(name + "\x00" + m.Name))
		value := m.Name + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
		k.values[m.Name] = []byte(value)
		k.fields[m.Name] = []byte(name + "=" + value + "; Path=/; Secure; HttpOnly; SameSite=Lax")
	}
	return k
}

// asked is the server that a request's cookie names; empty: none, or forged.
func (k sticky) asked(fields []wire.Field) string {
	if k.name == "" {
		return ""
	}
	value := cookie(fields, k.name)
	if value == nil {
		return ""
	}
	for server, known := range k.values {
		if subtle.ConstantTimeCompare(value, known) == 1 {
			return server
		}
	}
	return ""
}

var setCookie = []byte("Set-Cookie")

// giveCookie gives the visitor the cookie of the server that answered, unless
// it has it.
func giveCookie(x *proxy.Exchange) {
	v, ok := x.Local.(*view)
	if !ok || x.Sticky == x.Target {
		return
	}
	if value := v.sticky.fields[x.Target]; value != nil {
		x.Out = append(x.Out, wire.Field{Name: setCookie, Value: value, Kind: wire.SetCookie})
	}
}

// cookie is the value of the first cookie of that name (RFC 6265, 4.2.1); nil: none.
func cookie(fields []wire.Field, name string) []byte {
	for i := range fields {
		if fields[i].Kind != wire.Cookie {
			continue
		}
		for pair := range bytes.SplitSeq(fields[i].Value, []byte{';'}) {
			pair = bytes.TrimLeft(pair, " ")
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}

// keyFunc finds what a request is hashed by; false: nothing.
type keyFunc func(x *proxy.Exchange) (uint64, bool)

// keyOf is the key of policy hash; nil with any other policy.
func keyOf(c site.Balancer) keyFunc {
	if c.Policy != site.PolicyHash {
		return nil
	}
	kind, name, _ := strings.Cut(c.Hash, ":")
	switch kind {
	case "path":
		return func(x *proxy.Exchange) (uint64, bool) {
			path, _, _ := bytes.Cut(x.Request.Path, []byte{'?'})
			return hash(path), true
		}
	case "cookie":
		return func(x *proxy.Exchange) (uint64, bool) { return hashIf(cookie(x.Request.Fields, name)) }
	case "header":
		return func(x *proxy.Exchange) (uint64, bool) { return hashIf(wire.Get(x.Request.Fields, name)) }
	}
	return func(x *proxy.Exchange) (uint64, bool) {
		a := x.Client.As16()
		return hash(a[:]), true
	}
}

func hashIf(v []byte) (uint64, bool) { return hash(v), v != nil }

// hash is FNV-1a, finished as splitmix64 does, so that all three balancers
// send a key to the same server.
func hash(v []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range v {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
