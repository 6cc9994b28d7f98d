package site

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxNotice is how many characters the maintenance page's text may have.
const maxNotice = 1000

// tokenForm is what the name of a header field or cookie is made of: RFC 9110, 5.6.2.
var tokenForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")

func (r *report) balancer(b Balancer) {
	r.oneOf("balancer.tls", b.TLS, TLSReencrypt, TLSPassthrough)
	r.oneOf("balancer.policy", b.Policy, PolicyEWMA, PolicyLeast, PolicyRoundRobin, PolicyHash)
	r.oneOf("balancer.access_log", b.AccessLog, AccessJSON, AccessCombined, AccessOff)
	r.hash(b)
	r.sticky(b)
	r.passthrough(b)
	r.health("balancer.health", b.Health)
	r.eject(b.Eject)
	r.queue(b)
	for i, network := range b.Trusted {
		r.network(index("balancer.trusted", i), network)
	}
	r.between("balancer.drain", b.Drain, 0, 24*time.Hour)
	r.between("balancer.hsts", b.HSTS, 0, 10*365*24*time.Hour)
	r.notice(b.Maintenance.Text)
	r.limits(b.Limits)
}

// oneOf notes a value that is none of choices.
func (r *report) oneOf(key, value string, choices ...string) {
	if slices.Contains(choices, value) {
		return
	}
	last := len(choices) - 1
	if last == 1 {
		r.add(key, "%q is neither %s nor %s", value, choices[0], choices[1])
		return
	}
	r.add(key, "%q is none of %s and %s", value, strings.Join(choices[:last], ", "), choices[last])
}

// hash notes what is wrong in the key of policy hash.
func (r *report) hash(b Balancer) {
	const key = "balancer.hash"
	if b.Hash == HashClient || b.Hash == HashPath {
		return
	}
	kind, name, _ := strings.Cut(b.Hash, ":")
	switch {
	case kind+":" != HashCookie && kind+":" != HashHeader:
		r.add(key, "%q is no key (write client, path, cookie:NAME or header:NAME)", b.Hash)
	case !tokenForm.MatchString(name):
		r.add(key, "%q is not the name of a %s (at most 64 letters, digits and the like, no spaces; write it like %s)", name, kind, hashSample(kind))
	}
}

func hashSample(kind string) string {
	if kind+":" == HashCookie {
		return HashCookie + "session"
	}
	return HashHeader + "X-Account"
}

// sticky notes what is wrong in the name of the cookie.
func (r *report) sticky(b Balancer) {
	const key = "balancer.sticky"
	switch {
	case b.Sticky == "":
	case !tokenForm.MatchString(b.Sticky):
		r.add(key, "%q is not the name of a cookie (at most 64 letters, digits and the like, no spaces)", b.Sticky)
	case b.Hash == HashCookie+b.Sticky:
		r.add(key, "%q is also the cookie of balancer.hash; the balancer writes this one itself, so give it another name", b.Sticky)
	}
}

// passthrough notes what a balancer that does not decrypt cannot do.
func (r *report) passthrough(b Balancer) {
	if b.TLS != TLSPassthrough {
		return
	}
	if b.HTTP3 {
		r.add("balancer.http3", "cannot be with tls: passthrough, where the balancer does not decrypt; set it to false")
	}
	if b.Sticky != "" {
		r.add("balancer.sticky", "cannot be with tls: passthrough, where the balancer sees no cookies; use policy: hash with hash: client")
	}
	if b.Policy == PolicyHash && b.Hash != HashClient {
		r.add("balancer.hash", "%q cannot be read with tls: passthrough, where the balancer does not decrypt; only client can", b.Hash)
	}
}

func (r *report) eject(e Eject) {
	r.count("balancer.eject.errors", e.Errors, 0, 1000)
	if e.Slower == 1 {
		r.add("balancer.eject.slower", "1 would eject every server that is slower than the median; write 2 or more, or 0 for none")
	}
	r.count("balancer.eject.slower", e.Slower, 0, 1000)
	r.between("balancer.eject.for", e.For, time.Second, time.Hour)
	r.count("balancer.eject.most", e.Most, 0, 100)
}

// queue notes what is wrong in how requests wait and are tried again.
func (r *report) queue(b Balancer) {
	r.between("balancer.slow_start", b.SlowStart, 0, time.Hour)
	if b.Retries < 0 || b.Retries > ServerCount-1 {
		r.add("balancer.retries", "%d is out of range (0 to %d: there are so many other servers)", b.Retries, ServerCount-1)
	}
	r.count("balancer.retry_budget", b.RetryBudget, 0, 100)
	r.between("balancer.timeout", b.Timeout, 100*time.Millisecond, time.Hour)
	r.count("balancer.in_flight", b.InFlight, 1, 1<<20)
	r.count("balancer.queue", b.Queue, 0, 1<<20)
	r.between("balancer.wait", b.Wait, 0, 5*time.Minute)
}

// notice notes a text that is too long for the maintenance page, or not for reading.
func (r *report) notice(text string) {
	const key = "balancer.maintenance.text"
	odd := strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && c != '\t' && (c < ' ' || c == 0x7f) })
	switch n := utf8.RuneCountInString(text); {
	case n > maxNotice:
		r.add(key, "has %d characters; at most %d fit on the page", n, maxNotice)
	case odd || !utf8.ValidString(text):
		r.add(key, "holds control characters; write plain text")
	}
}

func (r *report) limits(l Limits) {
	r.count("balancer.limits.head", l.Head, 1<<10, 1<<20)
	r.count("balancer.limits.body", int(l.Body), 0, 1<<50)
	r.between("balancer.limits.head_time", l.HeadTime, 100*time.Millisecond, 10*time.Minute)
	r.between("balancer.limits.idle", l.Idle, time.Second, time.Hour)
	r.count("balancer.limits.rate", l.Rate, 0, 1<<30)
	r.count("balancer.limits.connections", l.Connections, 1, 1<<20)
}

// Well reports whether an answer with this status passes the check.
func (h Health) Well(status int) bool {
	low, high, err := h.statuses()
	return err == nil && low <= status && status <= high
}

// statuses reads h.Status; empty is as the default.
func (h Health) statuses() (low, high int, err error) {
	if h.Status == "" {
		return 200, 299, nil
	}
	first, last, ranged := strings.Cut(h.Status, "-")
	if !ranged {
		last = first
	}
	low, errLow := strconv.Atoi(first)
	high, errHigh := strconv.Atoi(last)
	if errLow != nil || errHigh != nil || len(first) != 3 || len(last) != 3 {
		return 0, 0, fmt.Errorf("%q is not a status (write one like \"204\", or a range like \"200-299\")", h.Status)
	}
	if low > high || low < 200 || high > 599 {
		return 0, 0, fmt.Errorf("%q is no range of statuses (200 to 599, the lower first)", h.Status)
	}
	return low, high, nil
}
