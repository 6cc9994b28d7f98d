package site

import (
	"fmt"
	"net/netip"
)

func index(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }

func isAddress(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// servers notes what is wrong in the list of servers. Addresses may be missing: the lab gives them.
func (r *report) servers(servers []Server) {
	if len(servers) != ServerCount {
		r.add("servers", "there are %d; a trivet stands on exactly %d", len(servers), ServerCount)
	}
	names, addresses := map[string]string{}, map[string]string{}
	var family netip.Addr
	for i, s := range servers {
		key := index("servers", i)
		r.name(key+".name", s.Name)
		r.twice(names, key+".name", s.Name)
		r.count(key+".weight", s.Weight, 1, 1000)
		a, ok := r.address(key+".address", s.Address)
		if !ok {
			continue
		}
		r.twice(addresses, key+".address", a.String())
		if !family.IsValid() {
			family = a
		}
		if family.Is4() != a.Is4() {
			r.add(key+".address", "%s and %s are of different families; use IPv4 for all or IPv6 for all", a, family)
		}
	}
}

// floating notes what is wrong in the floating address.
func (r *report) floating(s *Site) {
	floating, ok := r.address("address", s.Address)
	if !ok {
		return
	}
	for i, server := range s.Servers {
		a, err := netip.ParseAddr(server.Address)
		switch {
		case err != nil:
		case a.Unmap() == floating:
			r.add("address", "%s is the address of servers[%d] itself; the floating address needs one of its own", floating, i)
		case a.Unmap().Is4() != floating.Is4():
			r.add("address", "%s is not of the same family as %s, the address of servers[%d]", floating, a, i)
		}
	}
}

// address reads the address of a server, and reports whether there is a good one.
func (r *report) address(key, text string) (netip.Addr, bool) {
	if text == "" {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		r.add(key, "%q is not an IP address (write it like 10.0.0.11)", text)
		return netip.Addr{}, false
	}
	a = a.Unmap()
	if a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		r.add(key, "%s cannot be the address of a server (it is loopback, link-local, multicast or unspecified)", text)
		return netip.Addr{}, false
	}
	return a, true
}

// network notes text if it is no network in CIDR form.
func (r *report) network(key, text string) {
	if a, err := netip.ParseAddr(text); err == nil {
		r.add(key, "%q is one address; write it as the network %s/%d", text, a.WithZone(""), a.BitLen())
		return
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		r.add(key, "%q is not a network (write it like 10.0.0.0/24)", text)
	case p != p.Masked():
		r.add(key, "%q has bits beyond its length; write %s", text, p.Masked())
	}
}

func (r *report) egress(list []Egress) {
	for i, e := range list {
		key := index("firewall.egress", i)
		if e.To == "" {
			r.add(key+".to", "is missing")
		} else {
			r.network(key+".to", e.To)
		}
		if len(e.Ports) == 0 {
			r.add(key+".ports", "is missing; name at least one port")
		}
		for j, port := range e.Ports {
			r.count(index(key+".ports", j), port, 1, 65535)
		}
	}
}
