// Program chaos is an app that misbehaves when it is told to, for the lab ring:
// its health check stays well, as that of a broken app often does.
//
// The file chaos in its socket's folder names the fault; without it all is
// well. Every path answers with the server's name; /seen with the request's
// fields, as JSON; /socket switches to a protocol that says everything twice.
// Whatever the path, a request's body is read to its end first.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	socket := os.Getenv("SOCKET")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	a := &app{file: filepath.Join(filepath.Dir(socket), "chaos"), server: os.Getenv("TRIVET_SERVER")}
	srv := &http.Server{Handler: a, ReadHeaderTimeout: 5 * time.Second}
	var draining sync.WaitGroup
	draining.Go(func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = srv.Shutdown(limited)
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	draining.Wait()
}

type app struct{ file, server string }

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/healthz":
		_, _ = io.WriteString(w, "ok\n")
		return
	case "/socket":
		a.echo(w)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	switch a.fault() {
	case "slow":
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	case "reset":
		cutOff(w, "")
	case "garbage":
		cutOff(w, "\x16\x03\x01 this is not HTTP\n\n")
	case "half":
		cutOff(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
	case "error":
		w.WriteHeader(http.StatusBadGateway)
	}
	w.Header().Set("X-Server", a.server)
	if r.URL.Path == "/seen" {
		_ = json.NewEncoder(w).Encode(r.Header)
		return
	}
	_, _ = io.WriteString(w, a.server+"\n")
}

// fault is what the file says.
func (a *app) fault() string {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// cutOff says something and closes the connection.
func cutOff(w http.ResponseWriter, text string) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(c, text)
	_ = c.Close()
	panic(http.ErrAbortHandler)
}

// echo says everything twice.
func (a *app) echo(w http.ResponseWriter) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Server: "+a.server+"\r\n\r\n")
	_, _ = io.Copy(c, rw)
}
