package edge

import (
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/proxy"
	"trivet/proxy/wire"
	"trivet/site"
)

const givenTraceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// exchange is one whose request came from peer, with fields "Name: value".
func exchange(t *testing.T, peer string, lines ...string) *proxy.Exchange {
	t.Helper()
	r := &wire.Request{}
	head := "GET /a?b HTTP/1.1\r\nHost: www.foobar.com\r\n" + strings.Join(append(lines, "\r\n"), "\r\n")
	head = strings.Replace(head, "\r\n\r\n\r\n", "\r\n\r\n", 1)
	if err := r.Parse([]byte(head), &wire.Limits{}); err != nil {
		t.Fatalf("parse %q: %v", head, err)
	}
	p := netip.MustParseAddrPort(peer)
	return &proxy.Exchange{Request: r, Peer: p, Client: p.Addr(), Secure: true}
}

func rules(trusted ...string) *Rules {
	return New(&site.Site{Domain: "www.foobar.com", Aliases: []string{"foobar.com"}, Balancer: site.Balancer{Trusted: trusted}}, "")
}

// forwarded is what the next server is told: what is kept and what is added.
func forwardedFields(x *proxy.Exchange) map[string]string {
	got := map[string]string{}
	for i := range x.Request.Fields {
		if f := &x.Request.Fields[i]; Keep(f) && f.Kind != wire.Host {
			got[strings.ToLower(string(f.Name))] = string(f.Value)
		}
	}
	for _, f := range x.Up {
		name := strings.ToLower(string(f.Name))
		if _, twice := got[name]; twice {
			got[name] += " AND "
		}
		got[name] += string(f.Value)
	}
	return got
}

func TestClaims(t *testing.T) {
	lies := []string{
		"X-Forwarded-For: 198.51.100.9", "X-Forwarded-Proto: http", "X-Forwarded-Host: evil.example", "X-Forwarded-Port: 1",
		"Forwarded: for=198.51.100.9", "X-Real-IP: 198.51.100.9", "X-Request-ID: theirs", "X_Forwarded_For: 198.51.100.9",
		"X-Trivet-Client: 198.51.100.9", "X-Trivet-Check: 1", "True-Client-IP: 198.51.100.9", "Proxy: x",
		"traceparent: " + givenTraceparent, "tracestate: a=b", "Cookie: kept=1",
	}
	tests := map[string]struct {
		peer    string
		trusted []string
		client  string
		want    map[string]string
	}{
		"a visitor's word counts nothing": {"203.0.113.7:1000", nil, "203.0.113.7", map[string]string{
			"cookie": "kept=1", "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https", "x-forwarded-host": "www.foobar.com",
			"forwarded": `for=203.0.113.7;host="www.foobar.com";proto=https`, "x-trivet-client": "203.0.113.7",
			"x-request-id": "TRACE", "traceparent": "00-TRACE-SPAN-01",
		}},
		"nor that of a proxy which is not trusted": {"[2001:db8::7]:1000", []string{"203.0.113.0/24"}, "2001:db8::7", map[string]string{
			"cookie": "kept=1", "x-forwarded-for": "2001:db8::7", "x-forwarded-proto": "https", "x-forwarded-host": "www.foobar.com",
			"forwarded": `for="[2001:db8::7]";host="www.foobar.com";proto=https`, "x-trivet-client": "2001:db8::7",
			"x-request-id": "TRACE", "traceparent": "00-TRACE-SPAN-01",
		}},
		"a trusted proxy's is taken over": {"203.0.113.7:1000", []string{"203.0.113.0/24"}, "198.51.100.9", map[string]string{
			"cookie": "kept=1", "x-forwarded-for": "198.51.100.9, 203.0.113.7", "x-forwarded-proto": "http", "x-forwarded-host": "evil.example",
			"forwarded":       `for=198.51.100.9, for=203.0.113.7;host="evil.example";proto=http`,
			"x-trivet-client": "198.51.100.9", "x-request-id": "theirs",
			"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-SPAN-01", "tracestate": "a=b",
		}},
	}
	hex := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := exchange(t, tt.peer, lies...)
			if !rules(tt.trusted...).Admit(x) {
				t.Fatal("Admit: got false")
			}
			if got := x.Client.String(); got != tt.client {
				t.Errorf("client: got %s, want %s", got, tt.client)
			}
			if !hex.Match(x.Trace) || len(x.Span) != 16 {
				t.Errorf("trace %q, span %q", x.Trace, x.Span)
			}
			got := forwardedFields(x)
			for name, v := range got {
				if string(x.Trace) != givenTraceparent[3:35] {
					v = strings.ReplaceAll(v, string(x.Trace), "TRACE")
				}
				got[name] = strings.ReplaceAll(v, string(x.Span), "SPAN")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestGivenHost: what a trusted proxy passes on is taken over if it cannot be mistaken.
func TestGivenHost(t *testing.T) {
	tests := []struct{ host, proto, wantHost, wantProto string }{
		{"a.example", "http", "a.example", "http"},
		{"a.example:8080", "https", "a.example:8080", "https"},
		{"[2001:db8::1]:443", "https", "[2001:db8::1]:443", "https"},
		{"first.example, last.example", "http, https", "last.example", "https"},
		{`a"b;c`, `gopher" evil`, "www.foobar.com", "https"},
		{`a";for=6.6.6.6`, "HTTP", "www.foobar.com", "https"},
		{"", "", "www.foobar.com", "https"},
		{"a.example,", "http,", "www.foobar.com", "https"},
	}
	for _, tt := range tests {
		x := exchange(t, "203.0.113.7:1000", "X-Forwarded-Host: "+tt.host, "X-Forwarded-Proto: "+tt.proto)
		rules("203.0.113.0/24").claim(x)
		got := forwardedFields(x)
		forwarded := `for=203.0.113.7;host="` + tt.wantHost + `";proto=` + tt.wantProto
		if got["x-forwarded-host"] != tt.wantHost || got["x-forwarded-proto"] != tt.wantProto || got["forwarded"] != forwarded {
			t.Errorf("host %q, proto %q: got %q, %q, %q; want %q, %q, %q", tt.host, tt.proto,
				got["x-forwarded-host"], got["x-forwarded-proto"], got["forwarded"], tt.wantHost, tt.wantProto, forwarded)
		}
	}
}

func TestVisitor(t *testing.T) {
	tests := []struct{ chain, want string }{
		{"198.51.100.1", "198.51.100.1"},
		{"1.1.1.1, 198.51.100.1", "198.51.100.1"},
		{"198.51.100.1, 10.0.0.2, 10.0.0.3", "198.51.100.1"},
		{"10.0.0.3", "10.0.0.3"},
		{"unknown", "10.0.0.1"},
		{"198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"},
		{"::ffff:198.51.100.1", "198.51.100.1"},
	}
	for _, tt := range tests {
		x := exchange(t, "10.0.0.1:9", "X-Forwarded-For: "+tt.chain)
		if got := rules("10.0.0.0/8").visitor(x).String(); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.chain, got, tt.want)
		}
	}
}

func TestGivenTrace(t *testing.T) {
	tests := map[string]bool{
		givenTraceparent: true,
		"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more": true,
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01":      false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01":      false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01":      false,
		"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01":      false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7":         false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x":      false,
		"": false,
	}
	for value, want := range tests {
		got, _ := givenTrace([]wire.Field{{Name: traceparent, Value: []byte(value), Kind: wire.Traceparent}})
		if (got != nil) != want {
			t.Errorf("%q: got %q, want one: %v", value, got, want)
		}
	}
}

// TestFollow: one request keeps its ID and trace from server to server, and
// each has a span of its own.
func TestFollow(t *testing.T) {
	first := exchange(t, "203.0.113.7:1000")
	if !rules().Admit(first) {
		t.Fatal("Admit: got false")
	}
	var lines []string
	for _, f := range first.Up {
		lines = append(lines, string(f.Name)+": "+string(f.Value))
	}
	second := exchange(t, "10.0.0.1:1000", lines...)
	Follow(second)
	if string(second.ID) != string(first.ID) || string(second.Trace) != string(first.Trace) || string(second.Span) == string(first.Span) {
		t.Errorf("got %s %s %s, want %s %s and another span", second.ID, second.Trace, second.Span, first.ID, first.Trace)
	}
}

// TestSampled: what the first server decided on recording a trace holds for all.
func TestSampled(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, tt := range []struct{ peer, given, want string }{
		{"10.0.0.1:9", "01", "01"},
		{"10.0.0.1:9", "00", "00"},
		{"10.0.0.1:9", "02", "00"}, // a flag of later versions, which are not ours to pass on
		{"10.0.0.1:9", "03", "01"},
		{"203.0.113.7:9", "00", "01"}, // a visitor begins no trace
	} {
		first := exchange(t, tt.peer, "traceparent: 00-"+trace+"-00f067aa0ba902b7-"+tt.given)
		if !rules("10.0.0.0/8").Admit(first) {
			t.Fatal("Admit: got false")
		}
		second := exchange(t, "10.0.0.2:9", "traceparent: "+forwardedFields(first)["traceparent"])
		Follow(second)
		for i, x := range []*proxy.Exchange{first, second} {
			want := "00-" + string(x.Trace) + "-" + string(x.Span) + "-" + tt.want
			if got := string(wire.Find(x.Up, wire.Traceparent)); got != want {
				t.Errorf("%s says %s: server %d forwards %s, want %s", tt.peer, tt.given, i+1, got, want)
			}
		}
	}
}

func TestIsDomain(t *testing.T) {
	r := rules()
	for host, want := range map[string]bool{
		"www.foobar.com": true, "WWW.FooBar.com": true, "www.foobar.com.": true, "www.foobar.com:8443": true, "www.foobar.com.:80": true,
		"www.foobar.com.evil.example": false, "www.foobar.comevil": false, "foobar.com": false, "": false, "www.foobar.co": false,
	} {
		if got := r.isDomain([]byte(host)); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

// BenchmarkAdmit is what the edge costs each request.
func BenchmarkAdmit(b *testing.B) {
	r, x := rules(), &proxy.Exchange{}
	head := []byte("GET /a?b HTTP/1.1\r\nHost: www.foobar.com\r\nUser-Agent: x\r\n\r\n")
	req := &wire.Request{}
	if err := req.Parse(head, &wire.Limits{}); err != nil {
		b.Fatal(err)
	}
	x.Request, x.Peer = req, netip.MustParseAddrPort("203.0.113.7:1000")
	x.Client = x.Peer.Addr()
	b.ReportAllocs()
	for b.Loop() {
		x.Out, x.Up, x.Scratch = x.Out[:0], x.Up[:0], x.Scratch[:0]
		x.ID, x.Trace = nil, nil
		r.Admit(x)
	}
}
