package cli

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"trivet/database/sst"
	"trivet/internal/binary"
	"trivet/lab"
	"trivet/node"
)

var nodeCommand = command{
	name: "node", summary: "run this server's node (started by the machine, not by hand)", hidden: true,
	example: "trivet node",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(_ context.Context, e *env, args []string) error {
			if err := noArgs(args); err != nil {
				return err
			}
			return runNode(e)
		}
	},
}

// errStopServer is the cause of a context that ended because the whole server is to stop.
var errStopServer = errors.New("the server is to stop")

// runNode runs the node until SIGTERM (all that serves goes on, for the next
// node to adopt) or SIGINT (the server stops).
func runNode(e *env) error {
	if err := needRoot(); err != nil {
		return err
	}
	// Node carries no visitor's bytes: a second core would be woken, and go idle
	// again, at almost everything that it does.
	runtime.GOMAXPROCS(1)
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	build, err := binary.Build("/proc/self/exe")
	if err != nil {
		return err
	}
	n, err := node.Load(node.Config{Executable: exe, Version: Version, Build: build, Log: slog.New(slog.NewTextHandler(e.err, nil))})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go func() {
		if s, ok := <-signals; ok && s == syscall.SIGINT {
			cancel(errStopServer)
		}
		cancel(nil)
	}()
	err = n.Run(ctx)
	if !errors.Is(context.Cause(ctx), errStopServer) {
		return err
	}
	return errors.Join(err, n.Stop(context.Background()))
}

var labInitCommand = command{
	name: "lab-init", summary: "be the first process of a lab's server", hidden: true, raw: true, example: "(started by trivet up)",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(_ context.Context, _ *env, args []string) error { return lab.Init(context.Background(), args) }
	},
}

var sstCommand = command{
	name: "sst", summary: "transfer the database to a joining server", hidden: true, raw: true, example: "(started by mariadbd)",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(ctx context.Context, e *env, args []string) error {
			return sst.SST(ctx, args, e.in, e.out, e.err)
		}
	},
}
