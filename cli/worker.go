package cli

import (
	"context"
	"flag"
	"fmt"
	"net"
	"runtime"

	"trivet/balancer"
	"trivet/console"
	"trivet/database/backup"
	"trivet/database/router"
	"trivet/internal/part"
	"trivet/internal/worker"
	"trivet/monitor"
	"trivet/node"
	"trivet/web"
)

var workerCommand = command{
	name: "worker", args: "NAME", summary: "run one worker (started by node, not by hand)", hidden: true,
	example: "(started by trivet node)",
	flags: func(*flag.FlagSet) func(context.Context, *env, []string) error {
		return func(_ context.Context, _ *env, args []string) error {
			if len(args) != 1 {
				return usageError{"worker: name one"}
			}
			w, ok := workers[args[0]]
			if !ok {
				return usageError{fmt.Sprintf("worker: there is no worker %q", args[0])}
			}
			// Not the command line's context: an interrupt on a terminal is not for workers.
			return worker.Serve(context.Background(), args[0], w.fence, w.build)
		}
	},
}

// workers are the processes that touch what comes from outside, each with the
// folders that it may touch and how its part is built from what node hands over.
var workers = map[string]struct {
	fence worker.Fence
	build func(*worker.Env) (part.Part, error)
}{
	part.Balancer: {worker.Fence{}, buildBalancer},
	part.Web:      {worker.Fence{Read: []string{part.ReleaseDir}}, buildWeb},
	part.Router:   {worker.Fence{}, buildRouter},
	part.Backup: {worker.Fence{
		// MariaDB's programs, what they need, and what they copy: its folder may be
		// made anew, so that the one above it is named.
		Read:     []string{"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", part.LibDir},
		Write:    []string{part.BackupDir},
		Programs: true,
	}, buildBackup},
	part.Monitor: {worker.Fence{
		// The system's certificates, for webhooks.
		Read:  []string{"/proc", part.MetricsDir, part.ReleaseDir, "/etc/ssl/certs", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"},
		Write: []string{part.SeriesDir},
	}, buildMonitor},
}

// listeners takes several listeners by name.
func listeners(e *worker.Env, names ...string) ([]net.Listener, error) {
	var out []net.Listener
	for _, n := range names {
		l, err := e.Listener(n)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

func buildBalancer(e *worker.Env) (part.Part, error) {
	l, err := listeners(e, "http", "https")
	if err != nil {
		return nil, err
	}
	access, err := e.File("access")
	if err != nil {
		return nil, err
	}
	quic, err := e.PacketConn("quic")
	if err != nil {
		return nil, err
	}
	return balancer.New(balancer.Config{
		Log: e.Log, Metrics: e.Metrics, HTTP: l[0], HTTPS: l[1], QUIC: quic, Turn: quic.Turn(), Access: access,
	}), nil
}

func buildWeb(e *worker.Env) (part.Part, error) {
	l, err := listeners(e, "web")
	if err != nil {
		return nil, err
	}
	access, err := e.File("access")
	if err != nil {
		return nil, err
	}
	return web.New(web.Config{Log: e.Log, Metrics: e.Metrics, Listener: l[0], Access: access}), nil
}

func buildRouter(e *worker.Env) (part.Part, error) {
	l, err := listeners(e, "sql", "socket", "read", "read-socket", "tunnel")
	if err != nil {
		return nil, err
	}
	return router.New(router.Config{Log: e.Log, Metrics: e.Metrics, SQL: l[0], Socket: l[1], Read: l[2], ReadSocket: l[3], Tunnel: l[4]}), nil
}

func buildBackup(e *worker.Env) (part.Part, error) {
	runtime.GOMAXPROCS(1) // as in runNode
	l, err := listeners(e, "copies", "orders")
	if err != nil {
		return nil, err
	}
	return backup.New(backup.Config{
		Log: e.Log, Metrics: e.Metrics, Peer: l[0], Control: l[1],
		Hold: func(ctx context.Context, want bool) (bool, error) {
			var mine bool
			return mine, e.Call(ctx, node.CallBackupHold, want, &mine)
		},
		Record: func(ctx context.Context, r part.BackupRole) error {
			return e.Call(ctx, node.CallBackupRecord, r, &struct{}{})
		},
	}), nil
}

func buildMonitor(e *worker.Env) (part.Part, error) {
	runtime.GOMAXPROCS(1) // as in runNode
	l, err := listeners(e, "peer", "console")
	if err != nil {
		return nil, err
	}
	redeem := func(ctx context.Context, hash string) (bool, error) {
		var ok bool
		return ok, e.Call(ctx, node.CallRedeem, hash, &ok)
	}
	m := monitor.New(monitor.Config{Log: e.Log, Metrics: e.Metrics, Peer: l[0], Console: l[1]})
	m.SetConsole(console.New(console.Config{Log: e.Log, Source: m, Key: m.Key, Redeem: redeem, Note: m.Note}))
	return m, nil
}
