package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// role is what a peer that is this program is told.
type role struct {
	listen, target, certificate, key, files, profile string
	http2, targetTLS                                 bool
}

func parseRole(args []string) (role, error) {
	var r role
	flags := flag.NewFlagSet("role", flag.ContinueOnError)
	flags.StringVar(&r.listen, "listen", "", "`address` for visitors")
	flags.StringVar(&r.target, "target", "", "`address` that requests are forwarded to")
	flags.StringVar(&r.certificate, "certificate", "", "`file` with the certificate; TLS if there is one")
	flags.StringVar(&r.key, "key", "", "`file` with its key")
	flags.StringVar(&r.files, "files", "", "`folder` to serve rather than to forward")
	flags.BoolVar(&r.http2, "http2", false, "offer HTTP/2")
	flags.BoolVar(&r.targetTLS, "target-tls", false, "speak TLS with the target")
	flags.StringVar(&r.profile, "profile", "", "`file` to write a profile of CPU time to")
	return r, flags.Parse(args)
}

// tls returns nil for a plain role.
func (r role) tls() (*tls.Config, error) {
	if r.certificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(r.certificate, r.key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}, Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	if r.http2 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return c, nil
}

// toTarget is how a role speaks TLS with its target.
func toTarget() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, ServerName: hostName, InsecureSkipVerify: true} //nolint:gosec // the bench's own, made for this run
}

// serveNetHTTP is what one writes who has only the standard library.
func serveNetHTTP(ctx context.Context, args []string) error {
	r, err := parseRole(args)
	if err != nil {
		return err
	}
	config, err := r.tls()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", r.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{Handler: r.handler(), TLSConfig: config, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if config == nil {
		return s.Serve(l)
	}
	return s.ServeTLS(l, "", "")
}

func (r role) handler() http.Handler {
	if r.files != "" {
		return http.FileServer(http.Dir(r.files))
	}
	to := &url.URL{Scheme: "http", Host: r.target}
	if r.targetTLS {
		to.Scheme = "https"
	}
	return &httputil.ReverseProxy{
		Rewrite:    func(p *httputil.ProxyRequest) { p.SetURL(to); p.Out.Host = p.In.Host },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true, TLSClientConfig: toTarget()},
		BufferPool: &buffers{},
	}
}

// buffers are those of copying.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(p []byte) { b.pool.Put(&p) }
