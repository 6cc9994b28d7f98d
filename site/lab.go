package site

import (
	"maps"
	"net/netip"
	"slices"
)

// Clone returns a deep copy of s.
func (s *Site) Clone() *Site {
	c := *s
	c.Aliases = slices.Clone(s.Aliases)
	c.Servers = slices.Clone(s.Servers)
	c.Admin = slices.Clone(s.Admin)
	c.Balancer.Trusted = slices.Clone(s.Balancer.Trusted)
	c.Firewall.Egress = slices.Clone(s.Firewall.Egress)
	for i, e := range c.Firewall.Egress {
		c.Firewall.Egress[i].Ports = slices.Clone(e.Ports)
	}
	c.App.Run = slices.Clone(s.App.Run)
	c.App.Environment = maps.Clone(s.App.Environment)
	c.Monitor.Alerts = slices.Clone(s.Monitor.Alerts)
	return &c
}

// InLab returns a copy of s with the lab's addresses: servers gives each
// server's by its name, and operator alone may reach SSH and the console.
func (s *Site) InLab(operator, floating netip.Addr, servers map[string]string) *Site {
	c := s.Clone()
	c.Address = floating.String()
	c.Admin = []string{netip.PrefixFrom(operator, operator.BitLen()).String()}
	for i := range c.Servers {
		c.Servers[i].Address = servers[c.Servers[i].Name]
	}
	return c
}

// Complete reports, as Problems, what a site on real servers needs and a site
// in the lab does not: addresses, and a network to administer it from.
func (s *Site) Complete() error {
	r := newReport("")
	for i, server := range s.Servers {
		if server.Address == "" {
			r.add(index("servers", i)+".address", "is missing; server %s needs one outside the lab", server.Name)
		}
	}
	if len(s.Admin) == 0 {
		r.add("admin", "is missing; nobody could reach SSH and the console")
	}
	return r.err()
}
