package node

import (
	"fmt"
	"slices"
	"strings"

	"trivet/internal/part"
	"trivet/site"
)

// planBalancer says what changed settings of the balancer do to visitors.
func planBalancer(add func(name, format string, args ...any), was, now *site.Site) {
	for _, d := range differences(part.Balancer, was.Balancer, now.Balancer) {
		if effect := balancerEffect(d, now.Balancer); effect != "" {
			add(part.Balancer, "%s: %s", d, effect)
		} else {
			add(part.Balancer, "%s, without a restart", d)
		}
	}
	planWeights(add, was, now)
	if was.Domain != now.Domain {
		add(part.Balancer, "domain: %s → %s: visitors of another name are redirected to it", was.Domain, now.Domain)
	}
}

// planWeights says what share of the requests each server gets whose weight has changed.
func planWeights(add func(name, format string, args ...any), was, now *site.Site) {
	total := 0
	for _, s := range now.Servers {
		total += s.Weight
	}
	for _, s := range now.Servers {
		i := slices.IndexFunc(was.Servers, func(o site.Server) bool { return o.Name == s.Name })
		if i < 0 || was.Servers[i].Weight == s.Weight || total == 0 {
			continue
		}
		add(part.Balancer, "weight of %s: %d → %d: it gets %d %% of the requests", s.Name, was.Servers[i].Weight, s.Weight, (100*s.Weight+total/2)/total)
	}
}

// balancerEffect says what d does; empty where the names say it already.
func balancerEffect(d difference, now site.Balancer) string {
	name := strings.TrimPrefix(d.key, part.Balancer+".")
	section, _, _ := strings.Cut(name, ".")
	switch section {
	case "tls":
		return tlsEffects[now.TLS]
	case "policy", "hash":
		return policyEffect(name, now)
	case "sticky":
		return either(now.Sticky != "", "a signed cookie keeps each visitor with a server", "visitors are not kept with a server any more")
	case "health":
		return "the web servers are checked so from now on"
	case "adaptive":
		return either(now.Adaptive, "slow answers lower the number of requests in flight", "only in_flight limits the requests on a server")
	case "trusted":
		return "only from these networks are forwarding headers taken over"
	case "hsts":
		return either(now.HSTS > 0, "browsers stay with HTTPS for so long", "browsers are not told any more to stay with HTTPS; those that were do so until it is over")
	case "http3":
		return either(now.HTTP3, "HTTP/3 is offered", "HTTP/3 is not offered any more")
	case "access_log":
		return either(now.AccessLog == site.AccessOff, "requests are not logged any more", "requests are logged so from now on")
	}
	return edgeEffect(name, now)
}

// edgeEffect is of what visitors meet first.
func edgeEffect(name string, now site.Balancer) string {
	switch name {
	case "maintenance.on":
		return either(now.Maintenance.On, "EVERY VISITOR GETS THE MAINTENANCE PAGE and 503, until it is off again", "visitors reach the site again")
	case "maintenance.text":
		return either(now.Maintenance.On, "visitors read it at once", "nobody sees it while maintenance is off")
	case "limits.body":
		return either(now.Limits.Body > 0, fmt.Sprintf("a larger request than %d bytes is answered 413", now.Limits.Body), "requests may have any size")
	}
	return ""
}

var tlsEffects = map[string]string{
	site.TLSReencrypt:   "the balancers open the visitors' encryption; open connections finish as they are",
	site.TLSPassthrough: "the web servers open the visitors' encryption, and balancers choose by connection, not by request; open connections finish as they are",
}

var policyEffects = map[string]string{
	site.PolicyEWMA:       "of two servers drawn at random the one that answers faster gets the request",
	site.PolicyLeast:      "the server with the fewest requests in flight gets the next",
	site.PolicyRoundRobin: "the servers get the requests in turn, by their weights",
	site.PolicyHash:       "the same key goes to the same server; most visitors change servers once",
}

func policyEffect(name string, now site.Balancer) string {
	if name == "policy" {
		return policyEffects[now.Policy]
	}
	return either(now.Policy == site.PolicyHash, "most visitors change servers once", "nothing changes while policy is "+now.Policy)
}

func either(yes bool, one, other string) string {
	if yes {
		return one
	}
	return other
}
