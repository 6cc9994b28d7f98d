// Package edge is what the first server that can read a visitor's request does
// with it, before it is forwarded: the balancer, or with passthrough the web
// server.
//
// It gives the request its name and trace, says where it came from and lets
// nobody else say it (but proxies that the site trusts), sends visitors to the
// canonical name and to HTTPS, and shows the maintenance page.
package edge

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"trivet/proxy"
	"trivet/proxy/wire"
	"trivet/site"
)

// Rules are those of one site; they are never changed once made.
type Rules struct {
	domain      string // lower case
	aliases     map[string]bool
	trusted     []netip.Prefix
	origin      []byte // https://domain
	hsts        []byte // value of the field; nil: not sent
	altSvc      []byte // value of the field; nil: HTTP/3 is not offered
	maintenance []byte // page; nil: the site is open
}

// New returns the rules of s. altSvc says where HTTP/3 is offered (RFC 7838);
// empty: nowhere.
func New(s *site.Site, altSvc string) *Rules {
	r := &Rules{domain: strings.ToLower(s.Domain), aliases: map[string]bool{}, origin: []byte("https://" + s.Domain)}
	for _, a := range s.Aliases {
		r.aliases[strings.ToLower(a)] = true
	}
	for _, network := range s.Balancer.Trusted {
		if p, err := netip.ParsePrefix(network); err == nil { // Parse of site refused what is none
			r.trusted = append(r.trusted, p)
		}
	}
	if age := s.Balancer.HSTS.Std(); age > 0 {
		r.hsts = strconv.AppendInt([]byte("max-age="), int64(age/time.Second), 10)
	}
	if altSvc != "" {
		r.altSvc = []byte(altSvc)
	}
	if m := s.Balancer.Maintenance; m.On {
		r.maintenance = maintenancePage(m.Text)
	}
	return r
}

// Serves says whether name, a server name in lower case, is of this site.
func (r *Rules) Serves(name string) bool { return name == r.domain || r.aliases[name] }

// Plain answers a request that came without TLS: everything is at
// https://domain, save what certificate authorities ask for.
func (r *Rules) Plain(x *proxy.Exchange) {
	r.name(x)
	switch {
	case refuses(x.Request):
		Page(x, 405)
	case strings.HasPrefix(string(x.Request.Path), "/.well-known/acme-challenge/"):
		Page(x, 404)
	default:
		r.toDomain(x)
	}
}

// Admit names a request that came by TLS and says whether it is to be
// forwarded; if not, it has been answered.
func (r *Rules) Admit(x *proxy.Exchange) bool {
	r.name(x)
	host := x.Request.Host
	here := r.isDomain(host)
	ours := here || r.aliases[nameOf(host)]
	if r.hsts != nil && ours {
		x.Out = append(x.Out, wire.Field{Name: strictTransport, Value: r.hsts})
	}
	if r.altSvc != nil && x.Request.Major < 3 {
		x.Out = append(x.Out, wire.Field{Name: altSvc, Value: r.altSvc})
	}
	switch {
	case refuses(x.Request):
		Page(x, 405)
	case here:
		return r.open(x)
	case ours:
		r.toDomain(x)
	default:
		Page(x, 421)
	}
	return false
}

// open shows the maintenance page if there is one.
func (r *Rules) open(x *proxy.Exchange) bool {
	switch {
	case r.maintenance != nil:
		answer(x, 503, r.maintenance, wire.Field{Name: retryAfter, Value: []byte("300"), Kind: wire.RetryAfter})
		return false
	case string(x.Request.Path) == "*":
		x.Answer(204, []wire.Field{{Name: allow, Value: methods}}, nil)
		return false
	}
	if tunnelsHTTP(x.Request.Upgrade) {
		x.Request.Upgrade = nil // a second HTTP beneath would go past everything that checks requests
	}
	r.claim(x)
	return true
}

// refuses says that r is of a method that is not for a site: a proxy's, or one
// that shows a visitor's secrets to scripts. An extended CONNECT is a WebSocket.
func refuses(r *wire.Request) bool {
	switch string(r.Method) {
	case "TRACE":
		return true
	case "CONNECT":
		return string(r.Protocol) != "websocket"
	}
	return false
}

func tunnelsHTTP(protocol []byte) bool {
	if len(protocol) == 0 {
		return false
	}
	p := strings.ToLower(string(protocol))
	return p == "h2c" || p == "h2" || strings.HasPrefix(p, "http/") || strings.HasPrefix(p, "tls/")
}

// isDomain compares without allocating, for it is what nearly all ask for.
func (r *Rules) isDomain(host []byte) bool {
	n := len(r.domain)
	if len(host) < n || !strings.EqualFold(string(host[:n]), r.domain) {
		return false
	}
	rest := host[n:]
	if len(rest) > 0 && rest[0] == '.' {
		rest = rest[1:]
	}
	return len(rest) == 0 || rest[0] == ':'
}

// nameOf is the name in an authority, lower case, without port and final dot.
func nameOf(host []byte) string {
	name := strings.ToLower(string(host))
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		name = name[:i]
	}
	return strings.TrimSuffix(name, ".")
}

// toDomain redirects to the same page of the canonical name.
func (r *Rules) toDomain(x *proxy.Exchange) {
	status := 308 // keeps the method
	if m := string(x.Request.Method); m == "GET" || m == "HEAD" {
		status = 301
	}
	to := append(x.Scratch, r.origin...)
	if path := x.Request.Path; len(path) > 0 && path[0] == '/' {
		to = append(to, path...)
	} else {
		to = append(to, '/')
	}
	value := to[len(x.Scratch):]
	x.Scratch = to
	x.Answer(status, []wire.Field{{Name: location, Value: value, Kind: wire.Location}}, nil)
}
