package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"trivet/proxy"
	"trivet/proxy/upstream"
	"trivet/proxy/wire"
)

// serveEngine is trivet's engine with nothing around it: every request goes to
// the one target, or is for one of the files.
func serveEngine(ctx context.Context, args []string) error {
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
	handler, err := r.exchange()
	if err != nil {
		return err
	}
	if r.profile != "" {
		f, err := os.Create(r.profile)
		if err != nil {
			return fmt.Errorf("make a profile: %w", err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			return fmt.Errorf("begin a profile: %w", err)
		}
		defer pprof.StopCPUProfile()
	}
	return proxy.NewServer(proxy.Config{
		Log: slog.New(slog.DiscardHandler), Handler: handler, TLS: config, HTTP2: r.http2,
		Limits: wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 32 << 10, Count: 100},
		Times:  proxy.Times{Head: 10 * time.Second, Still: time.Minute, Idle: 5 * time.Minute, Rate: 256},
	}).Serve(ctx, l)
}

// exchange is the engine's handler: files, or forwarding.
func (r role) exchange() (func(*proxy.Exchange), error) {
	if r.files != "" {
		return serveFiles(r.files)
	}
	c := upstream.TargetConfig{Name: "target", Address: r.target, Dial: upstream.Dialer("tcp", r.target), IdleTimeout: 5 * time.Minute, State: upstream.Up}
	if r.targetTLS {
		c.TLS = toTarget()
	}
	pool := upstream.NewPool(upstream.PoolConfig{})
	pool.Set(upstream.Settings{
		Targets: []*upstream.Target{upstream.NewTarget(c)}, Retries: 2, Budget: 0.2,
		Timeout: time.Minute, Patience: 5 * time.Second, Queue: 1024,
	})
	return (&proxy.Forwarder{Pool: pool}).Forward, nil
}

// inMemory is the size up to which a file is answered from memory.
const inMemory = 64 << 10

// file is open, or in memory.
type file struct {
	size int64
	open *os.File
	data []byte
}

func serveFiles(dir string) (func(*proxy.Exchange), error) {
	files := map[string]file{}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the files: %w", err)
	}
	for _, name := range names {
		f, err := openFile(filepath.Join(dir, name.Name()))
		if err != nil {
			return nil, err
		}
		files["/"+name.Name()] = f
	}
	return func(x *proxy.Exchange) { answerFile(x, files[string(x.Request.Path)]) }, nil
}

func openFile(path string) (file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return file{}, fmt.Errorf("look at a file: %w", err)
	}
	f := file{size: info.Size()}
	if f.size <= inMemory {
		f.data, err = os.ReadFile(path)
	} else {
		f.open, err = os.Open(path)
	}
	if err != nil {
		return file{}, fmt.Errorf("read a file: %w", err)
	}
	return f, nil
}

var fileFields = []wire.Field{{Name: []byte("Content-Type"), Value: []byte("application/octet-stream"), Kind: wire.ContentType}}

func answerFile(x *proxy.Exchange, f file) {
	switch {
	case f.data != nil:
		x.Answer(200, fileFields, f.data)
	case f.open == nil:
		x.Answer(404, nil, nil)
	case x.Start(200, fileFields, f.size) == nil:
		_ = x.SendFile(f.open, 0, f.size)
		_ = x.End(nil)
	}
}
