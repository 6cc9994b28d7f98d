package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"

	"trivet/app"
	"trivet/certificate"
	"trivet/cluster"
	"trivet/database"
	"trivet/firewall"
	"trivet/internal/part"
	"trivet/internal/worker"
	"trivet/site"
)

// build makes the parts and wires them: all that one tells another passes through here.
func (n *Node) build() error {
	declared := n.agreed.Declared.Site
	i := slices.IndexFunc(declared.Servers, func(s site.Server) bool { return s.Name == n.name })
	if i < 0 {
		return fmt.Errorf("the site names no server %q", n.name)
	}
	own := declared.Servers[i].Address
	if err := n.buildCertificates(); err != nil {
		return err
	}
	n.buildCluster(declared)
	n.up = n.metrics.Gauge("trivet_part_up", "Whether a part is healthy.", "part")
	n.firewall = firewall.New(firewall.Config{Log: n.log.With("part", part.Firewall), Metrics: n.metrics})
	n.app = app.New(app.Config{Log: n.log.With("part", part.App), Server: n.name, Records: recordsDir, LogDir: part.LogDir, RunDir: part.AppRunDir, Changed: n.kick})
	n.database = database.New(database.Config{
		Server: n.name, Log: n.log.With("part", part.Database), Metrics: n.metrics, Executable: n.cfg.Executable, Shared: n.shared,
		Report: n.reportDatabase, ElectWriter: n.electWriter, Agree: n.agreeDatabase, Remember: n.changeRecord,
		PlanWriter: n.planWriter, Open: n.openTransactions,
	})
	n.releases = &releases{log: n.log.With("part", part.App), source: n.source, ready: n.kick}
	n.buildWorkers(own)
	n.buildDrivers()
	return nil
}

func (n *Node) buildCertificates() error {
	identities, err := authority("identities")
	if err != nil {
		return err
	}
	visitors, err := authority("visitors")
	if err != nil {
		return err
	}
	n.certs = certificate.New(certificate.Config{
		Log: n.log.With("part", part.Certificate), Metrics: n.metrics, Server: n.name,
		Identities: identities, Visitors: visitors, Changed: n.kick, FilesDir: part.LibDir,
		Parts: []string{part.Node, part.Balancer, part.Web, part.Router, part.Database, part.Monitor},
	})
	return nil
}

// authority reads one of the two roots that sign on this server.
func authority(name string) (*certificate.Authority, error) {
	dir := filepath.Join(part.LibDir, AuthorityDir)
	cert, err := os.ReadFile(filepath.Join(dir, name+".crt"))
	if err != nil {
		return nil, fmt.Errorf("read authority %s: %w", name, err)
	}
	key, err := os.ReadFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, fmt.Errorf("read authority %s: %w", name, err)
	}
	return certificate.ParseAuthority(cert, key)
}

func (n *Node) buildCluster(declared *site.Site) {
	var members []cluster.Member
	for _, s := range declared.Servers {
		members = append(members, cluster.Member{Name: s.Name, Address: s.Address})
	}
	tls := filepath.Join(part.LibDir, ClusterTLSDir)
	n.cluster = cluster.New(cluster.Config{
		Name: n.name, Members: members, Dir: filepath.Join(part.LibDir, ClusterDir), Port: part.PortCluster,
		Cert: filepath.Join(tls, "cert.pem"), Key: filepath.Join(tls, "key.pem"), CA: filepath.Join(tls, "ca.pem"),
		Token: declared.Name, Log: n.log.With("part", "cluster"),
	})
}

// buildWorkers says which processes run, as whom, and where they listen: the
// whole of what is bound on a server, besides etcd's peer port and Galera's.
func (n *Node) buildWorkers(own string) {
	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	n.addWorker(part.Balancer, part.UserBalancer, true,
		worker.Listener{Name: "http", Network: "tcp", Address: at("", part.PortHTTP)},
		worker.Listener{Name: "https", Network: "tcp", Address: at("", part.PortHTTPS)},
		worker.Listener{Name: "quic", Network: "udp", Address: at("", part.PortHTTPS)})
	n.addWorker(part.Web, part.UserWeb, true,
		worker.Listener{Name: "web", Network: "tcp", Address: at(own, part.PortWeb)})
	n.addWorker(part.Router, part.UserRouter, false,
		worker.Listener{Name: "sql", Network: "tcp", Address: at("127.0.0.1", part.PortSQL)},
		worker.Listener{Name: "socket", Network: "unix", Address: filepath.Join(part.RouterDir, "mysql.sock"), Group: part.UserApp},
		worker.Listener{Name: "read", Network: "tcp", Address: at("127.0.0.1", part.PortSQLRead)},
		worker.Listener{Name: "read-socket", Network: "unix", Address: filepath.Join(part.RouterDir, "read.sock"), Group: part.UserApp},
		worker.Listener{Name: "tunnel", Network: "tcp", Address: at(own, part.PortTunnel)})
	n.addWorker(part.Backup, part.UserMySQL, false,
		worker.Listener{Name: "copies", Network: "tcp", Address: at(own, part.PortBackup)},
		worker.Listener{Name: "orders", Network: "unix", Address: backupSocket})
	n.addWorker(part.Monitor, part.UserMonitor, false,
		worker.Listener{Name: "peer", Network: "tcp", Address: at(own, part.PortMonitor)},
		worker.Listener{Name: "console", Network: "tcp", Address: at(own, part.PortConsole)})
}

func (n *Node) addWorker(name, user string, access bool, listeners ...worker.Listener) {
	cfg := worker.Config{
		Name: name, User: user, Executable: n.cfg.Executable, Listeners: listeners, Access: access,
		Records: recordsDir, ControlDir: controlDir, LogDir: part.LogDir, MetricsDir: metricsFolder(name, user).path,
		Log: n.log.With("part", name), Changed: func() { n.drivers[name].again() },
		Build: n.cfg.Build,
	}
	switch name {
	case part.Balancer, part.Web:
		cfg.GC = 200 // garbage is collected a third as often, for a few MB
	case part.Monitor:
		cfg.Answer, cfg.Alone = n.answerWorker, true // its series are locked
	case part.Backup:
		cfg.Answer, cfg.Alone = n.answerBackup, true // there is one archive of one log
	}
	n.workers[name] = worker.New(cfg)
}

func (n *Node) buildDrivers() {
	parts := map[string]part.Part{
		part.Firewall: n.firewall, part.Certificate: n.certs, part.App: n.app, part.Database: n.database,
	}
	for name, w := range n.workers {
		parts[name] = w
	}
	for name, p := range parts {
		n.drivers[name] = newDriver(name, p, n.log, n.kick)
	}
	n.drivers[part.Router].applied = n.routed
	n.drivers[part.App].applied = n.appMoved
	// The app ends its former instances when web has stopped using them.
	n.drivers[part.Web].applied = func(s part.State) {
		var names []string
		for _, i := range s.Instances {
			names = append(names, i.Name)
		}
		n.app.Settle(names)
	}
}

// reportDatabase takes what the database says of itself.
func (n *Node) reportDatabase(m part.DatabaseMember) {
	n.mu.Lock()
	n.member = m
	n.mu.Unlock()
	n.drivers[part.Database].again()
	n.kick()
}

// electWriter makes writer the agreed writer if the agreed epoch is still
// epoch. It asks first with what this server knows: each round trip is time in
// which nobody can write.
func (n *Node) electWriter(ctx context.Context, epoch int64, writer string) error {
	elect := func(r *part.DatabaseRole) error {
		if r.Epoch != epoch {
			return fmt.Errorf("elect writer %s: %w", writer, cluster.ErrConflict)
		}
		r.Writer, r.Next, r.Epoch = writer, "", epoch+1
		return nil
	}
	n.mu.Lock()
	known := n.role
	n.mu.Unlock()
	if known.Revision > 0 {
		if err := swapKnown(ctx, n.cluster, keyDatabase, known, elect); !errors.Is(err, cluster.ErrConflict) {
			return err
		}
	}
	return n.changeRole(ctx, elect)
}

// agreeDatabase agrees on all of next but the writer, if that is still as in previous.
func (n *Node) agreeDatabase(ctx context.Context, previous, next part.DatabaseRole) error {
	agree := func(r *part.DatabaseRole) error {
		now, then := *r, previous
		now.Writer, now.Next, now.Epoch, then.Writer, then.Next, then.Epoch = "", "", 0, "", "", 0
		if !reflect.DeepEqual(now, then) {
			return fmt.Errorf("agree on the database's start: %w", cluster.ErrConflict)
		}
		next.Writer, next.Next, next.Epoch = r.Writer, r.Next, r.Epoch
		*r = next
		return nil
	}
	if own, err := n.changeOwn(agree); own {
		return err
	}
	return n.changeRole(ctx, agree)
}

// changeRole changes the agreed role by compare-and-swap.
func (n *Node) changeRole(ctx context.Context, change func(*part.DatabaseRole) error) error {
	return swap(ctx, n.cluster, keyDatabase, change)
}

// changeRecord changes what is remembered of the database.
func (n *Node) changeRecord(ctx context.Context, change func(*part.DatabaseRecord)) error {
	const tries = 5 // three nodes may want it at once
	n.mu.Lock()
	if n.agreed.Own != nil { // the cluster cannot be asked
		change(&n.agreed.Record)
		n.mu.Unlock()
		n.kick()
		return nil
	}
	n.mu.Unlock()
	var err error
	for range tries {
		err = swap(ctx, n.cluster, keyRecord, func(r *part.DatabaseRecord) error { change(r); return nil })
		if !errors.Is(err, cluster.ErrConflict) {
			return err
		}
	}
	return err
}

// swap changes the JSON value of key by compare-and-swap; a missing one is the zero value.
func swap[T any](ctx context.Context, c *cluster.Cluster, key string, change func(*T) error) error {
	v, err := c.Get(ctx, key)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return err
	}
	return swapKnown(ctx, c, key, v, change)
}

// swapKnown is swap for a key that last held v; cluster.ErrConflict if it holds something else now.
func swapKnown[T any](ctx context.Context, c *cluster.Cluster, key string, v cluster.Value, change func(*T) error) error {
	var value T
	if len(v.Data) > 0 {
		if err := json.Unmarshal(v.Data, &value); err != nil {
			return fmt.Errorf("read %s: %w", key, err)
		}
	}
	if err := change(&value); err != nil {
		return err
	}
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	_, err = c.Swap(ctx, key, v.Revision, data)
	return err
}
