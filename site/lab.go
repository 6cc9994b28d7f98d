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
