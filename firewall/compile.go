package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"

	"trivet/internal/part"
	"trivet/site"
)

// Between the servers, to the two peers only; DESIGN "Ports". Only the processes
// of these users connect to them: Galera admits whoever has an identity, so
// the others must not even reach it. Replies need no user: they are known.
var peerPorts = []struct {
	port  uint16
	users []string
}{
	{part.PortWeb, []string{part.UserBalancer}},
	{part.PortTunnel, []string{part.UserRouter}},
	{part.PortCluster, []string{root}},
	{part.PortMonitor, []string{part.UserMonitor, root}}, // node fetches releases there
	{part.PortGalera, []string{part.UserMySQL}},
	{part.PortIST, []string{part.UserMySQL}},
	{part.PortSST, []string{part.UserMySQL}},
	{part.PortBackup, []string{part.UserMySQL}},
}

const root = "root"

// For the operator, from the admin networks only.
var adminPorts = []uint16{part.PortSSH, part.PortConsole}

// For everybody.
var publicPorts = []struct {
	protocol byte
	port     uint16
}{{tcp, part.PortHTTP}, {tcp, part.PortHTTPS}, {udp, part.PortHTTPS}}

// Services outside that every server needs.
var (
	dnsPort = uint16(53)
	ntpPort = uint16(123)
)

// topology is what the policy depends on, read out of a State.
type topology struct {
	peers    []netip.Prefix
	admin    []netip.Prefix
	egress   []hole
	webhooks []hole
	bucket   []hole // for the database's copies; at most one
}

// hole is a permission to connect outward by TCP. A zero network is everywhere.
type hole struct {
	network netip.Prefix
	port    uint16
}

// Compile makes the policy of the server that s is for. It does no I/O.
func Compile(s part.State) (Policy, error) {
	t, err := read(s)
	if err != nil {
		return Policy{}, fmt.Errorf("compile firewall policy: %w", err)
	}
	return Policy{[]chain{
		{"input", t.input()},
		{"output", t.output()},
		{"forward", []rule{{verdict: dropIn}}},
	}}, nil
}

// input is ordered by how often a rule fits. The operator and the peers are
// accepted before the test for a SYN: their live connections outlast the
// moment when the firewall first comes up, and those that a reboot cut get the
// kernel's reset at once.
func (t topology) input() []rule {
	rules := []rule{
		{matches: []match{fromLoopback}, verdict: accept},
		{matches: []match{known}, verdict: accept},
		{matches: []match{invalid}, verdict: dropIn},
	}
	for _, network := range t.admin {
		for _, port := range adminPorts {
			rules = append(rules, allow("operator", from(network), toPort(tcp, port)))
		}
	}
	for _, peer := range t.peers {
		for _, p := range peerPorts {
			rules = append(rules, allow("peer", from(peer), toPort(tcp, p.port)))
		}
	}
	rules = append(rules, public()...)
	rules = append(rules, control(true)...)
	return append(rules, rule{verdict: dropIn})
}

// public lets everybody in to the site. A connection that began elsewhere,
// which is what a visitor has in hand when the floating address moves here, is
// reset so that the visitor connects again at once instead of waiting.
func public() []rule {
	var resets, opens []rule
	for _, p := range publicPorts {
		if p.protocol == tcp {
			resets = append(resets, rule{
				matches: []match{toPort(tcp, p.port), midStream, fresh, atMost(1000, 1000)},
				verdict: reset, comment: "began on another server",
			})
		}
		opens = append(opens, allow("visitors", toPort(p.protocol, p.port)))
	}
	rules := append(resets, rule{matches: []match{notSYN, fresh}, verdict: dropIn})
	return append(rules, opens...)
}

func (t topology) output() []rule {
	rules := []rule{
		{matches: []match{toLoopback}, verdict: accept},
		{matches: []match{known}, verdict: accept},
		{matches: []match{invalid}, verdict: dropOut},
	}
	for _, peer := range t.peers {
		rules = append(rules, toPeer(peer)...)
	}
	for _, network := range t.admin {
		rules = append(rules, allow("operator's session when the firewall comes up",
			to(network), fromPort(tcp, part.PortSSH), midStream))
	}
	rules = append(rules,
		allow("names", toPort(udp, dnsPort)), allow("names", toPort(tcp, dnsPort)),
		allow("time", toPort(udp, ntpPort)))
	for _, h := range t.egress {
		rules = append(rules, allow("egress", to(h.network), toPort(tcp, h.port)))
	}
	for _, h := range t.webhooks {
		rules = append(rules, h.outward("alert", part.UserMonitor))
	}
	for _, h := range t.bucket {
		rules = append(rules, h.outward("copies", part.UserMySQL))
	}
	rules = append(rules, control(false)...)
	return append(rules, rule{verdict: dropOut})
}

// toPeer lets each user connect to the ports that are its own. Where the machine
// has no such user, nobody has any business there: the rule is left out.
func toPeer(peer netip.Prefix) []rule {
	var rules []rule
	for _, p := range peerPorts {
		for _, user := range p.users {
			r := allow("peer", to(peer), toPort(tcp, p.port))
			r.user = user
			rules = append(rules, r)
		}
	}
	return rules
}

// outward lets a user reach a service of others: the monitor a webhook, the
// backups a bucket. If that is given by name, whoever answers for the name may
// be reached.
func (h hole) outward(comment, user string) rule {
	r := allow(comment, toPort(tcp, h.port))
	if h.network.IsValid() {
		r = allow(comment, to(h.network), toPort(tcp, h.port))
	}
	r.user, r.anyone = user, h.network.IsValid() && user == part.UserMonitor
	return r
}

// control is ICMP: what makes IPv6 work at all and both work well (RFC 4890).
// Errors about known connections are related to them and accepted before.
func control(in bool) []rule {
	rules := []rule{
		allow("", icmp4("echo-request", 8), atMost(10, 20)),
		allow("", icmp6("echo-request", 128), atMost(10, 20)),
		allow("", icmp6("destination-unreachable", 1)),
		allow("", icmp6("packet-too-big", 2)),
		allow("", icmp6("time-exceeded", 3)),
		allow("", icmp6("parameter-problem", 4)),
		allow("", icmp6("nd-neighbor-solicit", 135)),
		allow("", icmp6("nd-neighbor-advert", 136)),
	}
	if in {
		return append(rules, allow("", icmp6("nd-router-advert", 134)), allow("", icmp6("mld-listener-query", 130)))
	}
	return append(rules, allow("", icmp6("nd-router-solicit", 133)), allow("", icmp6("mld2-listener-report", 143)))
}

func allow(comment string, matches ...match) rule {
	return rule{matches: matches, verdict: accept, comment: comment}
}

// read takes out of s what the policy depends on, and says all that is wrong.
func read(s part.State) (topology, error) {
	if s.Site == nil {
		return topology{}, errors.New("no site")
	}
	peers, err := readPeers(s.Site.Servers, s.Server)
	admin, adminErr := readNetworks("admin", s.Site.Admin)
	egress, egressErr := readEgress(s.Site.Firewall.Egress)
	webhooks, webhookErr := readWebhooks(s.Site.Monitor.Alerts)
	bucket, bucketErr := readBucket(s.Site.Database.Backup.S3)
	return topology{peers, admin, egress, webhooks, bucket}, errors.Join(err, adminErr, egressErr, webhookErr, bucketErr)
}

func readPeers(servers []site.Server, self string) ([]netip.Prefix, error) {
	var peers []netip.Prefix
	found := false
	for _, server := range servers {
		a, err := netip.ParseAddr(server.Address)
		if err != nil {
			return nil, fmt.Errorf("read address of server %s: %w", server.Name, err)
		}
		if server.Name == self {
			found = true
			continue
		}
		peers = append(peers, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
	}
	if !found {
		return nil, fmt.Errorf("server %q is not in the site", self)
	}
	return peers, nil
}

func readNetworks(key string, texts []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, text := range texts {
		p, err := readNetwork(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
		networks = append(networks, p)
	}
	return networks, nil
}

// readNetwork reads a CIDR, or a lone address as the network of itself.
func readNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

func readEgress(list []site.Egress) ([]hole, error) {
	var holes []hole
	for _, e := range list {
		network, err := readNetwork(e.To)
		if err != nil {
			return nil, fmt.Errorf("read firewall.egress: %w", err)
		}
		for _, port := range e.Ports {
			if port < 1 || port > 65535 {
				return nil, fmt.Errorf("read firewall.egress: port %d is not in 1–65535", port)
			}
			holes = append(holes, hole{network, uint16(port)})
		}
	}
	return holes, nil
}

func readWebhooks(alerts []site.Alert) ([]hole, error) {
	var holes []hole
	seen := map[hole]bool{}
	for _, a := range alerts {
		if a.Webhook == "" {
			continue
		}
		h, err := readService(a.Webhook)
		if err != nil {
			return nil, fmt.Errorf("read webhook of alert %q: %w", a.Name, err)
		}
		if !seen[h] {
			seen[h] = true
			holes = append(holes, h)
		}
	}
	return holes, nil
}

// readBucket reads where the bucket for the database's copies is, if there is one.
func readBucket(s site.S3) ([]hole, error) {
	if s.Endpoint == "" {
		return nil, nil
	}
	h, err := readService(s.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("read database.backup.s3.endpoint: %w", err)
	}
	return []hole{h}, nil
}

// readService reads which address and port a URL is about.
func readService(text string) (hole, error) {
	u, err := url.Parse(text)
	if err != nil {
		return hole{}, err
	}
	h := hole{port: map[string]uint16{"http": 80, "https": 443}[u.Scheme]}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return hole{}, fmt.Errorf("port %q: %w", p, err)
		}
		h.port = uint16(n)
	}
	if h.port == 0 {
		return hole{}, fmt.Errorf("%s: neither http nor https nor a port", u.Redacted())
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil {
		h.network = netip.PrefixFrom(a.Unmap().WithZone(""), a.Unmap().BitLen())
	}
	return h, nil
}
