package proxy_test

import (
	"errors"
	"io"
	"net"
	"testing"

	"trivet/proxy"
)

func TestHanded(t *testing.T) {
	address := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	h := proxy.NewHanded(address)
	if got := h.Addr(); got != net.Addr(address) {
		t.Errorf("address: got %v, want %v", got, address)
	}
	first, _ := net.Pipe()
	go h.Take(first)
	if got, err := h.Accept(); got != first || err != nil {
		t.Errorf("accept: got %v, %v, want what was handed", got, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	second, peer := net.Pipe()
	go h.Take(second)
	if got, err := h.Accept(); got != second || err != nil {
		t.Errorf("accept after Close: got %v, %v, want what was handed", got, err)
	}

	late := make(chan struct{})
	go func() { defer close(late); h.Take(second) }() // nobody accepts
	h.End()
	h.End()
	<-late
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("what was handed in vain: got %v at its other end, want %v", err, io.EOF)
	}
	if c, err := h.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after End: got %v, %v, want %v", c, err, net.ErrClosed)
	}
}
