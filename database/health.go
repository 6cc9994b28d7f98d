package database

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// health is what one check of the running mariadbd found. The zero value is a
// mariadbd that does not answer.
type health struct {
	answers   bool
	ready     bool
	connected bool
	inPrimary bool
	state     int
	desync    int
	uuid      string // of the history; empty: none yet
	gcomm     string
	seqno     int64
	names     []string // servers in the group
	size      int
	queue     int64 // transactions received and not applied yet
	queries   float64
	threads   float64
	paused    time.Duration // by flow control, since the last FLUSH STATUS
}

// States of wsrep_local_state.
const (
	stateDonor  = 2
	stateJoined = 3
	stateSynced = 4
)

// primary reports whether the node is in a group that may write.
func (h health) primary() bool { return h.answers && h.inPrimary && h.connected }

// synced reports whether the node is healthy.
func (h health) synced() bool {
	return h.primary() && h.ready && h.state == stateSynced && h.desync == 0
}

// donor reports whether the node would be synced if it were not giving a copy,
// or catching up after that.
func (h health) donor() bool {
	return h.primary() && h.ready && (h.state == stateDonor || h.state == stateJoined)
}

// reason says why a node in a group is not synced.
func (h health) reason() string {
	switch {
	case h.state == stateDonor:
		return "giving data to another server"
	case h.state == stateJoined:
		return "catching up"
	case h.desync > 0:
		return "desynchronised by an operator or a backup"
	}
	return "joining"
}

const healthQuery = `SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME IN (
'wsrep_ready','wsrep_connected','wsrep_cluster_status','wsrep_local_state','wsrep_desync_count','wsrep_local_state_uuid',
'wsrep_gcomm_uuid','wsrep_last_committed','wsrep_incoming_addresses','wsrep_cluster_size','wsrep_flow_control_paused_ns',
'wsrep_local_recv_queue','Queries','Threads_connected')`

const noUUID = "00000000-0000-0000-0000-000000000000"

// check asks the mariadbd behind db for its health.
func check(ctx context.Context, db *sql.DB) (health, error) {
	rows, err := db.QueryContext(ctx, healthQuery)
	if err != nil {
		return health{}, fmt.Errorf("check database: %w", err)
	}
	defer func() { _ = rows.Close() }()
	status := make(map[string]string, 16)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return health{}, fmt.Errorf("check database: %w", err)
		}
		status[strings.ToLower(name)] = value
	}
	if err := rows.Err(); err != nil {
		return health{}, fmt.Errorf("check database: %w", err)
	}
	return parseStatus(status), nil
}

// parseStatus reads the status variables; what is missing or malformed counts as bad.
func parseStatus(status map[string]string) health {
	h := health{
		answers:   true,
		ready:     status["wsrep_ready"] == "ON",
		connected: status["wsrep_connected"] == "ON",
		inPrimary: status["wsrep_cluster_status"] == "Primary",
		state:     int(number(status["wsrep_local_state"], 0)),
		desync:    int(number(status["wsrep_desync_count"], 1)),
		uuid:      status["wsrep_local_state_uuid"],
		gcomm:     status["wsrep_gcomm_uuid"],
		seqno:     number(status["wsrep_last_committed"], -1),
		size:      int(number(status["wsrep_cluster_size"], 0)),
		queue:     number(status["wsrep_local_recv_queue"], 0),
		queries:   float64(number(status["queries"], 0)),
		threads:   float64(number(status["threads_connected"], 0)),
		paused:    time.Duration(number(status["wsrep_flow_control_paused_ns"], 0)),
	}
	if h.uuid == noUUID {
		h.uuid = ""
	}
	for a := range strings.SplitSeq(status["wsrep_incoming_addresses"], ",") {
		if name, _, _ := strings.Cut(a, ":"); name != "" {
			h.names = append(h.names, name)
		}
	}
	return h
}

func number(s string, otherwise int64) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

// open returns a pool of at most two connections to mariadbd's unix socket, as
// user; password "" is for the users that the socket itself identifies.
func open(socket, user, password, name string) (*sql.DB, error) {
	c := mysql.NewConfig()
	c.Net, c.Addr, c.User, c.Passwd, c.DBName = "unix", socket, user, password, name
	c.Timeout, c.ReadTimeout, c.WriteTimeout = time.Second, 10*time.Second, 10*time.Second
	c.InterpolateParams = true
	c.Logger = log.New(discard{}, "", 0) // every error is returned to us as well
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(1)
	return db, nil
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
