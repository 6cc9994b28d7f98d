package node

import (
	"fmt"
	"os"
	"path/filepath"

	"trivet/internal/part"
	"trivet/internal/process"
)

// Folders inside part.RunDir that only node uses.
const (
	recordsDir = part.RunDir + "/process" // records of what runs, for adoption
	controlDir = part.RunDir + "/worker"  // where workers dial in
)

// Files inside part.LibDir that only node uses.
const (
	IdentityFile  = "node.json"  // Identity, written when the server is set up
	LastGoodFile  = "state.json" // what the cluster agreed on last
	ClusterDir    = "cluster"    // etcd's data
	ClusterTLSDir = "cluster-tls"
	AuthorityDir  = "authority" // {identities,visitors}.{crt,key}
)

// folder is one folder of a server with its owner and mode.
type folder struct {
	path        string
	user, group string // empty: root
	mode        os.FileMode
}

// folders that every server has. A worker can enter only its own and those it shares.
var folders = []folder{
	{part.LibDir, "", "", 0o755},
	{part.ReleaseDir, "", "", 0o755},
	{part.SeriesDir, part.UserMonitor, part.UserMonitor, 0o700},
	{part.RunDir, "", "", 0o755},
	{recordsDir, "", "", 0o700},
	{controlDir, "", "", 0o711},
	{part.MetricsDir, "", part.UserMonitor, 0o751 | os.ModeSetgid}, // node's own socket
	metricsFolder(part.Balancer, part.UserBalancer),
	metricsFolder(part.Web, part.UserWeb),
	metricsFolder(part.Router, part.UserRouter),
	metricsFolder(part.Backup, part.UserMySQL),
	metricsFolder(part.Monitor, part.UserMonitor),
	{part.AppRunDir, part.UserApp, part.UserWeb, 0o750 | os.ModeSetgid},
	{filepath.Dir(part.SQLSocket), part.UserMySQL, part.UserRouter, 0o750 | os.ModeSetgid},
	{part.RouterDir, part.UserRouter, part.UserApp, 0o750 | os.ModeSetgid},
	{part.BackupDir, part.UserMySQL, part.UserMySQL, 0o700},
	{part.BackupRun, part.UserMySQL, part.UserMySQL, 0o700},
	{part.LogDir, "", "", 0o755},
}

// metricsFolder is where only that worker can put a socket, and the monitor reads it.
func metricsFolder(worker, user string) folder {
	return folder{filepath.Join(part.MetricsDir, worker), user, part.UserMonitor, 0o750 | os.ModeSetgid}
}

// prepare makes the folders; it changes nothing that is right already.
func prepare() error {
	for _, f := range folders {
		if err := f.make(); err != nil {
			return fmt.Errorf("prepare folder %s: %w", f.path, err)
		}
	}
	return nil
}

func (f folder) make() error {
	if err := os.MkdirAll(f.path, 0o700); err != nil {
		return err
	}
	uid, err := id(f.user, false)
	if err != nil {
		return err
	}
	gid, err := id(f.group, true)
	if err != nil {
		return err
	}
	if err := os.Chown(f.path, uid, gid); err != nil {
		return err
	}
	return os.Chmod(f.path, f.mode)
}

func id(name string, group bool) (int, error) {
	if name == "" {
		return 0, nil
	}
	c, err := process.Credential(name) // every user has a group of its own name
	if err != nil {
		return 0, err
	}
	if group {
		return int(c.Gid), nil
	}
	return int(c.Uid), nil
}
