package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"

	"trivet/cluster"
	"trivet/internal/part"
)

// backupSocket is where the backup worker takes orders.
var backupSocket = filepath.Join(part.BackupRun, "orders.sock")

// Questions of the backup worker.
const (
	// CallBackupHold takes the work of backups (true) or lets go of it (false); the answer says whether this server has it.
	CallBackupHold = "backup-hold"
	// CallBackupRecord agrees on a part.BackupRole, whose holder is of no account.
	CallBackupRecord = "backup-record"
)

// answerBackup serves the questions of the backup worker.
func (n *Node) answerBackup(ctx context.Context, method string, body json.RawMessage) (any, error) {
	switch method {
	case CallBackupHold:
		var want bool
		if err := json.Unmarshal(body, &want); err != nil {
			return nil, err
		}
		return n.holdBackup(ctx, want)
	case CallBackupRecord:
		var r part.BackupRole
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, err
		}
		r.Holder = ""
		data, err := json.Marshal(r)
		if err == nil {
			_, err = n.cluster.Put(ctx, keyBackup, data)
		}
		return struct{}{}, err
	}
	return nil, fmt.Errorf("method %q is not known", method)
}

// holdBackup takes the work, under this server's lease, or lets go of it.
func (n *Node) holdBackup(ctx context.Context, want bool) (bool, error) {
	if want {
		return n.cluster.Acquire(ctx, keyBackupWork, []byte(n.name))
	}
	v, err := n.cluster.Get(ctx, keyBackupWork)
	if errors.Is(err, cluster.ErrMissing) || err == nil && string(v.Data) != n.name {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return false, n.cluster.Delete(ctx, keyBackupWork)
}

// BackupKey is the identity by which the site's copies are opened.
type BackupKey struct {
	Key string `json:"key"`
}

func (n *Node) handleBackupKey(*http.Request) (any, error) {
	k := n.state().Secrets[part.SecretBackup]
	if k == "" {
		return nil, errors.New("the cluster has agreed on no backup key yet")
	}
	return BackupKey{k}, nil
}

// backupOrders hands the operator's requests on to the backup worker as they are.
func backupOrders() http.Handler {
	var d net.Dialer
	return &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "backup" },
		FlushInterval: -1,
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", backupSocket)
		}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.WriteHeader(http.StatusBadGateway)
			_ = json.NewEncoder(w).Encode(failure{Error: "ask the backup worker: " + err.Error()})
		},
	}
}
