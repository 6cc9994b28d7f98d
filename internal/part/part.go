// Package part says what the things that a server runs have in common: the
// interface that node drives them by, and the values that they are driven with.
//
// A part does not know whether it runs inside node or in a worker process of
// its own. It never asks for state: state arrives, whole, by Apply. It never
// imports another part; what one part has to tell another passes through
// node, which puts it into the next State.
package part

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"trivet/site"
)

// Inspector is a Part that can say more of itself than whether it is healthy,
// for commands such as `trivet balancer status`. The answer is encoded as JSON.
type Inspector interface {
	Inspect(ctx context.Context) (any, error)
}

// Part is one of the things a server runs.
type Part interface {
	// Apply makes s so. It is idempotent, may be called before Run and at any
	// time during it, never concurrently with itself, and on error leaves the
	// last good state in force.
	Apply(ctx context.Context, s State) error
	// Run serves until ctx ends, then drains under a deadline of its own and
	// returns nil. It is called once.
	Run(ctx context.Context) error
	// Check reports health: nil is healthy, the error's text is for the
	// operator and says why and, if it is known, what to do.
	Check(ctx context.Context) error
}

// The names of the seven parts, in the order in which tables show them.
const (
	Balancer    = "balancer"
	Firewall    = "firewall"
	Certificate = "certificate"
	Web         = "web"
	App         = "app"
	Database    = "database"
	Monitor     = "monitor"
)

// Names are the seven parts in the order in which tables show them.
var Names = []string{Balancer, Firewall, Certificate, Web, App, Database, Monitor}

// Node and Router are not parts, but have identities of their own on the wire.
const (
	Node   = "node"   // one server's root process
	Router = "router" // the database's router and tunnel, a worker of part database
)

// Backup is a worker of part database, which makes and keeps its copies. On the
// wire it is the database.
const Backup = "backup"

// Users that run what is not root. Each is a system user with a group of its own name.
const (
	UserBalancer = "trivet-balancer"
	UserWeb      = "trivet-web"
	UserRouter   = "trivet-router"
	UserMonitor  = "trivet-monitor"
	UserApp      = "trivet-app"
	UserMySQL    = "mysql" // made by Debian's mariadb-server package
)

// Ports between and before the servers; see DESIGN "Ports".
const (
	PortHTTP    = 80
	PortHTTPS   = 443
	PortSSH     = 22
	PortConsole = 9443
	PortWeb     = 7080 // balancer → web
	PortTunnel  = 7306 // router → router
	PortCluster = 7380 // etcd peers
	PortMonitor = 7090 // monitor and API between servers
	PortGalera  = 4567
	PortIST     = 4568
	PortSST     = 4444
	PortBackup  = 7391 // backup → backup: copies of the database
	PortSQL     = 3306 // 127.0.0.1 only: the router's address for the app
	PortSQLRead = 3307 // 127.0.0.1 only: the same for reads, which the server's own database answers
)

// Folders of a server. In the lab each server sees its own behind these names.
const (
	LibDir      = "/var/lib/trivet"                  // state that must survive a reboot; 0755 root
	RunDir      = "/run/trivet"                      // sockets and process records; gone after a reboot
	LogDir      = "/var/log/trivet"                  // one file for each process
	ReleaseDir  = LibDir + "/releases"               // <hash>/{app,static}; readable by all, never written after unpacking
	DatabaseDir = LibDir + "/database"               // mariadbd's data folder, user mysql
	SeriesDir   = LibDir + "/series"                 // the monitor's time series, user trivet-monitor
	AppRunDir   = RunDir + "/app"                    // the instances' sockets: owner trivet-app, group trivet-web, mode 2750
	MetricsDir  = RunDir + "/metrics"                // node's socket, and a folder for each worker with its own; group trivet-monitor
	SQLSocket   = RunDir + "/database/mariadbd.sock" // folder mode 0750 mysql:trivet-router
	RouterDir   = RunDir + "/router"                 // the router's own sockets
	BackupDir   = LibDir + "/backups"                // copies of the other servers' databases, sealed; user mysql
	BackupRun   = RunDir + "/backup"                 // the backup worker's socket, for node; user mysql
)

// State is everything that a part may know, whole, at one moment. Parts treat
// it as immutable: slices and maps in it are never written.
type State struct {
	Revision int64      `json:"revision"` // of the site in the cluster; grows with every apply
	Site     *site.Site `json:"site"`
	Server   string     `json:"server"`  // the name of the server this part runs on
	Members  []Member   `json:"members"` // every server of the site, in the site's order
	Quorum   bool       `json:"quorum"`  // whether the cluster can agree on changes now

	AddressHolder string         `json:"address_holder,omitempty"` // server that holds the floating address; empty: nobody yet
	Database      DatabaseRole   `json:"database"`
	Record        DatabaseRecord `json:"record,omitzero"` // for part database only
	Backup        BackupRole     `json:"backup,omitzero"`
	Release       Release        `json:"release"`
	Instances     []Instance     `json:"instances,omitempty"` // the app's instances on this server, for web

	Identity     KeyPair           `json:"identity"`               // this part's own identity between servers
	Bundle       []byte            `json:"bundle,omitempty"`       // PEM: the roots that sign identities
	Certificates []KeyPair         `json:"certificates,omitempty"` // for visitors: balancer (the site) and monitor (the console)
	Secrets      map[string]string `json:"secrets,omitempty"`      // by the Secret names below; only what this part may know
}

// Names in State.Secrets.
const (
	SecretConsoleKey     = "console-key"      // signs the console's sessions; the same on all servers
	SecretAppDatabase    = "database-app"     // password of the app's database user
	SecretAppDatabaseOld = "database-app-old" // the one before it, while it is being replaced
	SecretEnvironment    = "environment"      // the site's secrets file, KEY=value lines, for the app
	SecretTicketKeys     = "ticket-keys"      // of TLS session tickets, the same on all servers: 32 bytes each, base64, separated by spaces, the newest first
	SecretSticky         = "sticky"           // signs the cookies by which a visitor stays with a server, and more is derived from it; the same on all servers, and never renewed
	SecretBackup         = "backup"           // seals the database's copies: an age identity, the same on all servers
	SecretS3KeyID        = "s3-key-id"        // of the bucket for copies; from the site's secrets file
	SecretS3Secret       = "s3-secret"        // the same

	SecretAppDatabaseNext = "database-app-next" // the app's database user's next password, while not everyone takes it yet
	SecretReader          = "database-reader"   // password of the database user who only looks; see package database
)

// Member is one server as the cluster sees it.
type Member struct {
	Name     string            `json:"name"`
	Address  string            `json:"address"`
	Alive    bool              `json:"alive"`              // its node holds its lease in the cluster
	Drained  bool              `json:"drained,omitempty"`  // `trivet drain`: it gets no new requests
	Database DatabaseMember    `json:"database"`           // what its node last said of its database; zero when not alive
	Revision int64             `json:"revision,omitempty"` // of the site that it has applied
	Problems map[string]string `json:"problems,omitempty"` // by part: why it is not healthy; absent parts are healthy

	Accepts string `json:"accepts,omitempty"` // fingerprint of the newest password of the app's database user that its router takes
	Uses    string `json:"uses,omitempty"`    // fingerprint of the one that its app has

	Holds int64 `json:"holds,omitempty"` // epoch in which its router begins no transaction, for the writer is about to change; 0: it does
}

// DatabaseMember is what a server says of its own database node.
type DatabaseMember struct {
	State string `json:"state,omitempty"` // one of the Database… states below
	UUID  string `json:"uuid,omitempty"`  // of the Galera cluster whose history it holds
	Seqno int64  `json:"seqno,omitempty"` // last committed position, known while it is down; -1 unknown
	Gcomm string `json:"gcomm,omitempty"` // wsrep_gcomm_uuid while it runs
	Group string `json:"group,omitempty"` // the servers in its Galera group, by name, with commas between, while that may write

	Start string `json:"start,omitempty"` // the newest of DatabaseRole.Starts that its data took part in
	Old   bool   `json:"old,omitempty"`   // its data folder is an older copy of the one that mariadbd last ran on

	Short   bool   `json:"short,omitempty"`   // its disk is nearly full
	Accepts string `json:"accepts,omitempty"` // of the writer: fingerprint of the newest password that the app's user can sign in with
}

// States of a DatabaseMember.
const (
	DatabaseUnknown = ""        // not looked yet
	DatabaseEmpty   = "empty"   // no data folder, or one without any history
	DatabaseDown    = "down"    // not running; UUID and Seqno say what it holds
	DatabaseJoining = "joining" // running, not synced (state transfer, or no primary component)
	DatabaseSynced  = "synced"  // healthy: may be the writer
)

// DatabaseRole is the cluster's agreement on the database.
type DatabaseRole struct {
	Writer    string `json:"writer,omitempty"`    // server that takes all writes; empty: none yet
	Next      string `json:"next,omitempty"`      // planned writer: routers hold new transactions and let open ones end before it becomes Writer
	Epoch     int64  `json:"epoch"`               // grows with every change of Writer
	Bootstrap string `json:"bootstrap,omitempty"` // server that was last agreed to start the Galera cluster alone
	UUID      string `json:"uuid,omitempty"`      // of the agreed history; empty before the first bring-up

	Starts []DatabaseStart `json:"starts,omitempty"` // of the group by one server alone, the newest last
	Force  DatabaseForce   `json:"force,omitzero"`   // what an operator wants started; zero: nothing
}

// DatabaseStart is an agreed start of the group by one server alone. A data
// folder that did not take part in it may hold more than that server did: that
// is no part of the history.
type DatabaseStart struct {
	ID     string    `json:"id"`
	Server string    `json:"server"`
	Seqno  int64     `json:"seqno"` // the position that it went on from; -1: from nothing
	At     time.Time `json:"at"`
	Forced bool      `json:"forced,omitempty"` // an operator's word stood for what was not known
	Lost   []string  `json:"lost,omitempty"`   // servers whose data the operator gave up
}

// DatabaseForce is an operator's word that server is to start the group alone,
// whatever the servers in Lose hold.
type DatabaseForce struct {
	Server string   `json:"server"`
	Lose   []string `json:"lose,omitempty"`
}

// LastStart is the newest start; zero if there was none.
func (r DatabaseRole) LastStart() DatabaseStart {
	if len(r.Starts) == 0 {
		return DatabaseStart{}
	}
	return r.Starts[len(r.Starts)-1]
}

// DatabaseRecord is what the cluster remembers of the database's past. By it
// an old copy of a data folder is known for one.
type DatabaseRecord struct {
	UUID      string           `json:"uuid,omitempty"`      // the history that the next three are of
	Start     string           `json:"start,omitempty"`     // the newest of DatabaseRole.Starts at that time
	Committed int64            `json:"committed,omitempty"` // a position up to which all was on the writer's disk
	Epoch     int64            `json:"epoch,omitempty"`     // whose writer has all that was acknowledged before it
	Launches  map[string]int64 `json:"launches,omitempty"`  // by server: how often mariadbd was started on its data folder
}

// BackupRole is the cluster's agreement on the database's copies.
type BackupRole struct {
	Holder   string      `json:"holder,omitempty"`  // server that makes them now and archives its binary log
	Since    time.Time   `json:"since,omitzero"`    // of the first that was finished
	Last     BackupNote  `json:"last,omitzero"`     // the newest that was finished
	Failed   BackupNote  `json:"failed,omitzero"`   // the newest attempt, if it failed
	Drill    BackupDrill `json:"drill,omitzero"`    // the newest rehearsal of a restore
	Verified BackupDrill `json:"verified,omitzero"` // the newest that went well
}

// BackupNote is one full backup, or the attempt at one.
type BackupNote struct {
	ID    string    `json:"id,omitempty"`
	At    time.Time `json:"at,omitzero"`
	UUID  string    `json:"uuid,omitempty"` // of the history that it belongs to
	Log   string    `json:"log,omitempty"`  // the chain of the binary log's pieces that leads on from it
	GTID  string    `json:"gtid,omitempty"` // of the last transaction in it
	Size  int64     `json:"size,omitempty"` // bytes of one copy
	Error string    `json:"error,omitempty"`
}

// BackupDrill is one rehearsal of a restore.
type BackupDrill struct {
	At     time.Time     `json:"at,omitzero"`
	Backup string        `json:"backup,omitempty"` // that was restored
	GTID   string        `json:"gtid,omitempty"`   // up to which the binary log was applied
	Tables int           `json:"tables,omitempty"` // that were checked
	Rows   int64         `json:"rows,omitempty"`   // that were counted, here and there
	Took   time.Duration `json:"took,omitempty"`   // nanoseconds
	Error  string        `json:"error,omitempty"`  // why it is not verified
}

// Release is an unpacked version of the site's files.
type Release struct {
	Hash string `json:"hash,omitempty"` // sha256, hex; empty: the site has neither app nor static files
	Dir  string `json:"dir,omitempty"`  // ReleaseDir/Hash, holds app/ and static/
}

// Instance is one running instance of the app on this server.
type Instance struct {
	Name    string `json:"name"`    // unique among those that run, for logs: "3-1" is generation 3, instance 1
	Network string `json:"network"` // "unix" or "tcp"
	Address string `json:"address"` // socket path, or 127.0.0.1:port
}

// KeyPair is a certificate chain and its private key, both PEM.
type KeyPair struct {
	Certificate []byte `json:"certificate,omitempty"`
	Key         []byte `json:"key,omitempty"`
}

// Fingerprint names a secret where the secret itself must not be seen.
func Fingerprint(secret string) string {
	if secret == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("trivet:" + secret))
	return hex.EncodeToString(sum[:6])
}

// Member returns the member of that name, or false.
func (s State) Member(name string) (Member, bool) {
	i := slices.IndexFunc(s.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		return Member{}, false
	}
	return s.Members[i], true
}

// Self returns the member that this part runs on; zero if the site does not name it.
func (s State) Self() Member {
	m, _ := s.Member(s.Server)
	return m
}
