// Program foobar is a public message board: the example site of trivet, and a
// pattern for an app that stays up while servers under it die.
//
// What it relies on: $SOCKET or $PORT says where to listen, $DATABASE_URL where
// the database is, SIGTERM asks it to finish. What it takes care of itself: no
// message is acknowledged before it is committed, none is stored twice however
// often it is sent, and a change of the database's writer makes requests
// slower for a moment but does not fail them.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// drainLimit is how long requests may take to finish after SIGTERM; it is less than app.grace in site.yaml.
const drainLimit = 8 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("instance", os.Getenv("TRIVET_INSTANCE"))
	if err := run(ctx, log, os.Getenv); err != nil {
		log.Error("foobar ends", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, log *slog.Logger, getenv func(string) string) error {
	store, err := openStore(getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = store.close() }()
	l, err := listen(getenv)
	if err != nil {
		return err
	}
	migrated := make(chan struct{})
	migrating, cancel := context.WithCancel(ctx)
	defer func() { cancel(); <-migrated }()
	go func() {
		defer close(migrated)
		store.migrateUntilDone(migrating, log)
	}()
	b := &board{log: log, store: store, server: getenv("TRIVET_SERVER"), instance: getenv("TRIVET_INSTANCE")}
	return serve(ctx, l, b.routes())
}

// listen opens the socket, or the port of this machine, that the environment names.
func listen(getenv func(string) string) (net.Listener, error) {
	if path := getenv("SOCKET"); path != "" {
		// One that a killed process left there would be in the way.
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("remove former socket: %w", err)
		}
		return net.Listen("unix", path)
	}
	if port := getenv("PORT"); port != "" {
		return net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
	}
	return nil, errors.New("set $SOCKET or $PORT to say where to listen")
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		return fmt.Errorf("finish requests: %w", err)
	}
	return nil
}
