package database

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"trivet/internal/part"
	"trivet/site"

	"trivet/database/sst"
)

// settings is the option file of mariadbd on server, with so many MiB of
// memory: a pure function.
//
// SQL is spoken on the unix socket only. Galera's three channels (group, state
// changes, full copies) listen on the server's own address and speak TLS with
// the database's identity. The times make a dead node leave the group after
// about a second; shorter ones make it flap at 5 % loss.
//
// Safe rather than fast or lenient: every commit is on the disk, a transaction
// that read what another has changed since is refused, so is a table without a
// primary key or of an engine that is not replicated, and a value that does not
// fit. A change of a table (TOI) happens on all servers at the same place of
// the history and holds writes meanwhile, rather than on one after the other,
// where two forms of a table would be written at once; see ddl.go.
func settings(s *site.Site, server string, members []part.Member, p Paths, memory int) ([]byte, error) {
	i := slices.IndexFunc(members, func(m part.Member) bool { return m.Name == server })
	if i < 0 || members[i].Address == "" {
		return nil, fmt.Errorf("write database settings: the site names no address of server %q", server)
	}
	address := members[i].Address
	var others []string
	for _, m := range members {
		if m.Name != server {
			others = append(others, endpoint(m.Address, part.PortGalera))
		}
	}
	values := map[string]any{
		"Paths": p, "Site": s.Name, "Server": server, "Address": address, "Memory": memory,
		"Connections": len(members)*s.Database.Connections + spareConnections,
		"Peers":       strings.Join(others, ","), "SST": endpoint(address, part.PortSST), "Provider": provider(address, p),
	}
	var out bytes.Buffer
	if err := optionFile.Execute(&out, values); err != nil {
		return nil, fmt.Errorf("write database settings: %w", err)
	}
	return out.Bytes(), nil
}

// spareConnections are mariadbd's beyond those of the routers: for its health, for a person, and for routers that are being replaced.
const spareConnections = 50

func endpoint(address string, port int) string {
	return net.JoinHostPort(address, strconv.Itoa(port))
}

// provider is Galera's own option string.
func provider(address string, p Paths) string {
	return strings.Join([]string{
		"gmcast.listen_addr=ssl://" + endpoint(address, part.PortGalera),
		"ist.recv_addr=ssl://" + endpoint(address, part.PortIST),
		"socket.ssl_ca=" + p.TLS + "/" + sst.CAFile,
		"socket.ssl_cert=" + p.TLS + "/" + sst.CertFile,
		"socket.ssl_key=" + p.TLS + "/" + sst.KeyFile,
		"gcache.size=64M", "gcache.recover=yes",
		"pc.recovery=false", // with a member missing it would keep the SQL socket closed
		"pc.wait_prim=no",
		"gcs.fc_limit=128", "gcs.fc_single_primary=yes",
		"gmcast.peer_timeout=PT0.8S",
		"evs.keepalive_period=PT0.2S", "evs.inactive_check_period=PT0.1S",
		"evs.suspect_timeout=PT0.8S", "evs.inactive_timeout=PT1.6S",
		"evs.view_forget_timeout=PT1S", // by default an evicted node stops the group for 2.5 s at each later join, for a day
		"evs.install_timeout=PT1S", "evs.join_retrans_period=PT0.2S",
	}, ";")
}

var optionFile = template.Must(template.New("my.cnf").Parse(`# Written by trivet; changes are lost.
[mariadbd]
datadir = {{.Paths.Data}}
socket = {{.Paths.Socket}}
pid_file = {{.Paths.Data}}/mariadbd.pid
skip_networking
skip_name_resolve
performance_schema = OFF
max_connections = {{.Connections}}
character_set_server = utf8mb4
collation_server = utf8mb4_unicode_ci
sql_mode = STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION
local_infile = OFF
secure_file_priv = {{.Paths.Run}}

innodb_buffer_pool_size = {{.Memory}}M
innodb_log_file_size = 64M
innodb_flush_log_at_trx_commit = 1
innodb_autoinc_lock_mode = 2
innodb_snapshot_isolation = ON
innodb_force_primary_key = ON

server_id = 1
log_bin = bin
log_slave_updates = ON
binlog_format = ROW
sync_binlog = 1
expire_logs_days = 7

wsrep_on = ON
wsrep_provider = {{.Paths.Provider}}
wsrep_cluster_name = {{.Site}}
wsrep_cluster_address = gcomm://{{.Peers}}
wsrep_node_name = {{.Server}}
wsrep_node_address = {{.Address}}
wsrep_node_incoming_address = {{.Server}}
wsrep_gtid_mode = ON
wsrep_gtid_domain_id = 77
wsrep_slave_threads = 4
wsrep_retry_autocommit = 3
wsrep_mode = STRICT_REPLICATION
wsrep_OSU_method = TOI
wsrep_sst_method = trivet
wsrep_sst_receive_address = {{.SST}}
wsrep_provider_options = "{{.Provider}}"
`))
