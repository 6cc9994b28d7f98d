package wire_test

import (
	"errors"
	"strings"
	"testing"

	"trivet/proxy/wire"
)

// asked is a request as it comes from HTTP/2, fields as "name: value".
func asked(method, scheme, host, path, protocol string, fields ...string) *wire.Request {
	r := &wire.Request{
		Method: []byte(method), Scheme: []byte(scheme), Host: []byte(host), Path: []byte(path), Protocol: []byte(protocol), Major: 2,
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields = append(r.Fields, wire.Field{Name: []byte(name), Value: []byte(value)})
	}
	return r
}

func TestCheck(t *testing.T) {
	r := asked("POST", "https", "", "/a?b", "", "host: example.com", "te: trailers", "content-length: 5", "expect: 100-continue", "cookie: a")
	if err := r.Check(limits); err != nil {
		t.Fatal(err)
	}
	if string(r.Host) != "example.com" || r.Length != 5 || !r.Trailers || !r.Expect || r.Fields[4].Kind != wire.Cookie {
		t.Errorf("got %+v", r)
	}
	for _, r := range []*wire.Request{
		asked("GET", "http", "a:1", "/", ""),
		asked("OPTIONS", "https", "a", "*", ""),
		asked("CONNECT", "", "a:443", "", ""),
		asked("CONNECT", "https", "a", "/chat", "websocket", "host: A"),
	} {
		if err := r.Check(limits); err != nil || r.Length != -1 {
			t.Errorf("%s %s: got length %d, %v", r.Method, r.Path, r.Length, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	get := func(fields ...string) *wire.Request { return asked("GET", "https", "a", "/", "", fields...) }
	tests := map[string]*wire.Request{
		"method":             asked("G T", "https", "a", "/", ""),
		"no method":          asked("", "https", "a", "/", ""),
		"scheme":             asked("GET", "ftp", "a", "/", ""),
		"no scheme":          asked("GET", "", "a", "/", ""),
		"no path":            asked("GET", "https", "a", "", ""),
		"path":               asked("GET", "https", "a", "/a b", ""),
		"path of a line":     asked("GET", "https", "a", "/ HTTP/1.1\r\nX: y", ""),
		"asterisk":           asked("GET", "https", "a", "*", ""),
		"no host":            asked("GET", "https", "", "/", ""),
		"host":               asked("GET", "https", "a@b", "/", ""),
		"connect with path":  asked("CONNECT", "https", "a:1", "/", ""),
		"connect, no port":   asked("CONNECT", "", "a", "", ""),
		"another host":       get("host: b"),
		"two hosts":          get("host: a", "host: a"),
		"capital":            get("X-A: b"),
		"space in name":      get("x a: b"),
		"colon in name":      get(":path: /b"),
		"line in value":      get("x: a\r\ncontent-length: 3"),
		"nul in value":       get("x: a\x00"),
		"space before value": get("x:  a"),
		"connection":         get("connection: close"),
		"keep-alive":         get("keep-alive: 3"),
		"proxy-connection":   get("proxy-connection: close"),
		"upgrade":            get("upgrade: websocket"),
		"transfer-encoding":  get("transfer-encoding: chunked"),
		"te":                 get("te: gzip"),
		"length":             get("content-length: +3"),
		"two lengths":        get("content-length: 3", "content-length: 3"),
		"expectation":        get("expect: x"),
		"trace with body":    asked("TRACE", "https", "a", "/", "", "content-length: 1"),
		"long path":          asked("GET", "https", "a", "/"+strings.Repeat("a", 9000), ""),
		"long field":         get("x: " + strings.Repeat("a", 20000)),
		"many fields":        get(strings.Split(strings.Repeat("x: y,", 200), ",")...),
		"long head":          get(strings.Split(strings.Repeat("x: "+strings.Repeat("a", 9000)+",", 10), ",")[:10]...),
	}
	for name, r := range tests {
		err := r.Check(limits)
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Status < 400 {
			t.Errorf("%s: got %v, want an Error", name, err)
		}
	}
}
