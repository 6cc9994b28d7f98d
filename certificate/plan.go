package certificate

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"trivet/internal/part"
)

// Visitors' certificates live longer than identities: each renewal is seen by browsers.
const (
	visitorFactor = 7
	visitorMax    = 90 * 24 * time.Hour
)

// plan says what the server has to have: an identity for each part, and the
// visitors' certificates. It is pure.
func plan(s part.State, server string, parts []string, visitors bool) (map[string]Request, error) {
	own, ok := s.Member(server)
	if !ok {
		return nil, fmt.Errorf("plan certificates: the site has no server %s", server)
	}
	address, err := netip.ParseAddr(own.Address)
	if err != nil {
		return nil, fmt.Errorf("plan certificates: address of %s: %w", server, err)
	}
	life := s.Site.Certificate.Lifetime.Std()
	want := map[string]Request{}
	for _, name := range parts {
		want[name] = Request{
			Site: s.Site.Name, Server: server, Part: name,
			Addresses: []netip.Addr{address}, Lifetime: life,
		}
	}
	if !visitors {
		return want, nil
	}
	life = min(life*visitorFactor, visitorMax)
	names := append([]string{s.Site.Domain}, s.Site.Aliases...)
	want[Site] = Request{Names: names, Lifetime: life, Visitor: true}
	addresses := []netip.Addr{address}
	if floating, err := netip.ParseAddr(s.Site.Address); err == nil && floating != address {
		addresses = append(addresses, floating)
	}
	want[Console] = Request{Names: names[:1], Addresses: addresses, Lifetime: life, Visitor: true}
	return want, nil
}

func (r Request) equal(o Request) bool {
	return r.Site == o.Site && r.Server == o.Server && r.Part == o.Part &&
		r.Lifetime == o.Lifetime && r.Visitor == o.Visitor &&
		slices.Equal(r.Names, o.Names) && slices.Equal(r.Addresses, o.Addresses)
}
