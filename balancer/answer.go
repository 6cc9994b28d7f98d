package balancer

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"

	proxy "trivet/oldproxy"
)

// hsts tells browsers to stay with HTTPS for a year (RFC 6797).
const hsts = "max-age=31536000"

// redirect answers plain HTTP: everything is at https://domain, save what
// certificate authorities ask for.
func (b *Balancer) redirect(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		page(w, http.StatusNotFound)
		return
	}
	b.toDomain(w, r)
}

// toDomain redirects to the same page of the canonical name.
func (b *Balancer) toDomain(w http.ResponseWriter, r *http.Request) {
	status := http.StatusPermanentRedirect // keeps the method
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		status = http.StatusMovedPermanently
	}
	to := r.URL.EscapedPath()
	if !strings.HasPrefix(to, "/") {
		to = "/"
	}
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	w.Header().Set("Location", "https://"+b.now.Load().site.Domain+to)
	w.WriteHeader(status)
}

// answer answers HTTPS.
func (b *Balancer) answer(w http.ResponseWriter, r *http.Request) {
	v, host := b.now.Load(), hostOf(r)
	switch {
	case r.Method == http.MethodConnect, r.Method == http.MethodTrace:
		page(w, http.StatusMethodNotAllowed)
	case strings.EqualFold(host, v.site.Domain):
		b.web.ServeHTTP(w, r)
	case v.aliases[host]:
		b.toDomain(w, r)
	default:
		page(w, http.StatusMisdirectedRequest)
	}
}

// hostOf is the name that r asks for, lower case, without port and final dot;
// empty if the port is none.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return ""
		}
		host = h
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// rewrite makes out say where the request came from, and takes out what only
// trivet may say. Names with an underscore are dropped, since many an app
// takes X_Forwarded_For and X-Forwarded-For for the same.
func rewrite(in, out *http.Request) {
	for name := range out.Header {
		if strings.ContainsRune(name, '_') || claims(name) {
			delete(out.Header, name)
		}
	}
	client := proxy.ClientOf(in.RemoteAddr)
	out.Header.Set("X-Forwarded-For", client)
	out.Header.Set("X-Forwarded-Proto", "https")
	out.Header.Set("X-Forwarded-Host", in.Host)
	out.Header.Set("Forwarded", fmt.Sprintf("for=%s;host=%q;proto=https", forwardedNode(client), in.Host))
	out.Header.Set("X-Request-Id", proxy.ExchangeOf(in.Context()).ID)
}

// claims says that a header tells where a request came from, or what some
// other proxy thinks of it.
func claims(name string) bool {
	switch name {
	case "Forwarded", "X-Real-Ip", "True-Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "X-Request-Id", "Proxy",
		"X-Original-Url", "X-Rewrite-Url":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Trivet-")
}

// forwardedNode writes an address as RFC 7239, section 6 wants it.
func forwardedNode(address string) string {
	if strings.Contains(address, ":") {
		return `"[` + address + `]"`
	}
	return address
}

// newID names a request: 128 random bits, hexadecimal.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
