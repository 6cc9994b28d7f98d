package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// scene is one thing that all peers do in turn.
type scene struct {
	name, title string
	shape       shape
	connections int
	path        string
	streams     int  // of HTTP/2, on each connection; 0: HTTP/1.1
	anew        bool // a connection for each request
	resume      bool // of TLS sessions
	websocket   bool
	idle        bool
	goal        float64 // of trivet's CPU (memory, where idle), as a share of the best peer's
	kilobytes   float64 // goal of trivet's memory for each idle connection
}

// scenes in the order in which they run.
var scenes = []scene{
	{name: "small", title: "HTTP/1.1 keep-alive, 130 bytes, 64 connections", path: "/small", connections: 64, goal: 0.9},
	{name: "64k", title: "HTTP/1.1 keep-alive, 64 kB, 32 connections", path: "/medium", connections: 32, goal: 0.9},
	{name: "10m", title: "HTTP/1.1 keep-alive, 10 MB, 8 connections", path: "/large", connections: 8, goal: 0.9},
	{name: "tls", title: "HTTP/1.1 over TLS, 130 bytes, 64 connections", shape: shape{TLS: true}, path: "/small", connections: 64, goal: 0.9},
	{name: "tls-both", title: "TLS on both sides, 130 bytes, 64 connections", shape: shape{TLS: true, TLSTarget: true}, path: "/small", connections: 64, goal: 0.9},
	{name: "tls-full", title: "A new TLS connection for each request, full handshake", shape: shape{TLS: true}, path: "/small", anew: true, goal: 1},
	{name: "tls-resumed", title: "A new TLS connection for each request, resumed", shape: shape{TLS: true}, path: "/small", anew: true, resume: true, goal: 1},
	{name: "h2", title: "HTTP/2 over TLS, 64 connections with 1 stream", shape: shape{TLS: true, HTTP2: true}, connections: 64, streams: 1, goal: 0.9},
	{name: "h2-streams", title: "HTTP/2 over TLS, 8 connections with 32 streams", shape: shape{TLS: true, HTTP2: true}, connections: 8, streams: 32, goal: 0.9},
	{name: "websocket", title: "WebSocket echo, 64 bytes, 64 connections", path: "/websocket", connections: 64, websocket: true, goal: 0.9},
	{name: "file-1k", title: "Static file of 1 kB, 64 connections", shape: shape{Static: true}, path: "/1k", connections: 64, goal: 0.9},
	{name: "file-1m", title: "Static file of 1 MB, 16 connections", shape: shape{Static: true}, path: "/1m", connections: 16, goal: 0.9},
	{name: "idle", title: "5,000 idle connections, plain", path: "/small", connections: idleConnections, idle: true, kilobytes: 1.5},
	{name: "idle-tls", title: "5,000 idle connections, TLS", shape: shape{TLS: true}, path: "/small", connections: idleConnections, idle: true, kilobytes: 12},
}

// chooseScenes returns the scenes that are named, comma between; empty: all.
func chooseScenes(names string) ([]scene, error) {
	if names == "" {
		return scenes, nil
	}
	var out []scene
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenes, func(s scene) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scene %q: there are %s", name, sceneNames())
		}
		out = append(out, scenes[i])
	}
	return out, nil
}

func sceneNames() string {
	var names []string
	for _, s := range scenes {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

// fields of every request, as a plain client sends them.
const fields = "Host: " + hostName + "\r\nUser-Agent: bench\r\nAccept: */*\r\n"

// visit is what visitors of the scene do at a peer.
func (b *bench) visit(s scene, r *running) *visit {
	v := &visit{port: r.port, n: s.connections, request: []byte("GET " + s.path + " HTTP/1.1\r\n" + fields + "\r\n")}
	if s.shape.TLS {
		v.tls = b.client
	}
	if s.websocket {
		v.upgrade = []byte("GET " + s.path + " HTTP/1.1\r\n" + fields + "Connection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		// One masked frame of 58 bytes of text (RFC 6455, 5.2).
		v.request = append([]byte{0x81, 0x80 | 58, 1, 2, 3, 4}, strings.Repeat("x", 58)...)
	}
	return v
}

// measure makes one round of one peer in a scene.
func (b *bench) measure(ctx context.Context, s scene, r *running) (sample, error) {
	v := b.visit(s, r)
	switch {
	case s.idle:
		return b.idle(ctx, *v, r)
	case s.anew:
		request := []byte("GET " + s.path + " HTTP/1.1\r\n" + fields + "Connection: close\r\n\r\n")
		return b.round(ctx, &fresh{loop: b.loop, port: r.port, config: b.client, request: request, resume: s.resume}, r)
	case s.streams > 0:
		return b.round(ctx, &streams{loop: b.loop, port: r.port, clients: s.connections, each: s.streams, dir: b.dir}, r)
	}
	if err := b.loop.connect(v); err != nil {
		return sample{}, err
	}
	return b.round(ctx, kept{b.loop}, r)
}

// play runs a scene: all peers are started, then measured in turn, round by round.
func (b *bench) play(ctx context.Context, s scene) (Outcome, error) {
	out := Outcome{Scene: s.name, Title: s.title, scene: s}
	all, err := b.startAll(ctx, s)
	defer func() {
		for _, r := range all {
			r.stop()
		}
	}()
	if err != nil {
		return out, err
	}
	rounds := b.rounds
	if s.idle {
		rounds = 1 // memory is the same every time, for a process that is started anew
	}
	samples := map[*running][]sample{}
	for n := range rounds {
		for i := range all { // each is first in turn
			r := all[(i+n)%len(all)]
			one, err := b.undisturbed(ctx, s, r)
			if err != nil {
				return out, fmt.Errorf("%s: %s: %w%s", s.name, r.peer.name, err, r.said())
			}
			say("%s, round %d: %-9s %9.0f/s %8.2f µs, others %3.0f %%", s.name, n+1, r.peer.name, one.Rate, one.CPU, one.Others*100)
			samples[r] = append(samples[r], one)
		}
	}
	for _, r := range all {
		if r.peer.compare {
			out.measured = append(out.measured, r.peer.name)
		}
		out.Peers = append(out.Peers, middle(r.peer.name, samples[r]))
	}
	out.compare()
	return out, nil
}

// startAll starts all peers that can play the scene. On error those that run are returned, too.
func (b *bench) startAll(ctx context.Context, s scene) ([]*running, error) {
	var all []*running
	for i, p := range b.peers {
		if s.shape.Static && p.noFiles {
			continue
		}
		r, err := b.start(ctx, p, b.settings(s, p, i))
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
	return all, nil
}
