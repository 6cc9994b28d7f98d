package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
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
		Server: n.name, Log: n.log.With("part", part.Database), Metrics: n.metrics, Executable: n.cfg.Executable,
		Report: n.reportDatabase, ElectWriter: n.electWriter, Bootstrap: n.bootstrapDatabase,
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

// electWriter makes writer the agreed writer if the agreed epoch is still epoch.
func (n *Node) electWriter(ctx context.Context, epoch int64, writer string) error {
	return n.changeRole(ctx, func(r *part.DatabaseRole) error {
		if r.Epoch != epoch {
			return fmt.Errorf("elect writer %s: %w", writer, cluster.ErrConflict)
		}
		r.Writer, r.Next, r.Epoch = writer, "", epoch+1
		return nil
	})
}

// bootstrapDatabase agrees that server starts the Galera cluster with the history uuid.
func (n *Node) bootstrapDatabase(ctx context.Context, previous part.DatabaseRole, server, uuid string) error {
	return n.changeRole(ctx, func(r *part.DatabaseRole) error {
		if r.Bootstrap != previous.Bootstrap || r.UUID != previous.UUID {
			return fmt.Errorf("agree on bootstrap by %s: %w", server, cluster.ErrConflict)
		}
		r.Bootstrap, r.UUID = server, uuid
		return nil
	})
}

// changeRole changes the agreed role by compare-and-swap.
func (n *Node) changeRole(ctx context.Context, change func(*part.DatabaseRole) error) error {
	v, err := n.cluster.Get(ctx, keyDatabase)
	if err != nil && !errors.Is(err, cluster.ErrMissing) {
		return fmt.Errorf("read the database's role: %w", err)
	}
	var role part.DatabaseRole
	if err == nil {
		if err := json.Unmarshal(v.Data, &role); err != nil {
			return fmt.Errorf("read the database's role: %w", err)
		}
	}
	if err := change(&role); err != nil {
		return err
	}
	data, err := json.Marshal(role)
	if err != nil {
		return err
	}
	_, err = n.cluster.Swap(ctx, keyDatabase, v.Revision, data)
	return err
}
