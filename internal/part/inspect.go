package part

import "time"

// BalancerStatus is what a balancer says of itself when it is inspected.
type BalancerStatus struct {
	Server      string          `json:"server"`
	Policy      string          `json:"policy"`
	Maintenance bool            `json:"maintenance,omitempty"`
	Connections int             `json:"connections"` // of visitors, open now
	Tunnels     int             `json:"tunnels"`     // WebSockets and the like among them
	InFlight    int64           `json:"in_flight"`   // requests with the backends
	Queued      int64           `json:"queued"`      // requests that wait for a backend
	Limit       int             `json:"limit"`       // of requests in flight that adaptive concurrency allows now; 0: none
	Shed        uint64          `json:"shed"`        // requests refused with 503 since the start
	Retries     uint64          `json:"retries"`     // since the start
	Backends    []BackendStatus `json:"backends"`
}

// BackendStatus is one web server as a balancer sees it.
type BackendStatus struct {
	Name      string        `json:"name"`
	Address   string        `json:"address"`
	State     string        `json:"state"`           // up, slow-start, unwell, untested, down, ejected, drained
	Why       string        `json:"why,omitempty"`   // of the state, if it is not up
	Since     time.Time     `json:"since"`           // of the state
	Weight    int           `json:"weight"`          // as declared
	Effective float64       `json:"effective"`       // weight in force: less in slow start
	InFlight  int64         `json:"in_flight"`       // requests and tunnels
	Kept      int           `json:"kept"`            // idle connections
	Latency   time.Duration `json:"latency"`         // peak EWMA of the time to an answer's head, nanoseconds
	Requests  uint64        `json:"requests"`        // since the start
	Failures  uint64        `json:"failures"`        // since the start
	Until     *time.Time    `json:"until,omitempty"` // end of an ejection
}

// RouterStatus is what a database router says of itself when it is inspected.
type RouterStatus struct {
	Writer  string `json:"writer"` // that statements go to; empty: none is known
	Epoch   int64  `json:"epoch"`
	Held    bool   `json:"held,omitempty"` // a planned switch is made ready: no transaction begins
	Open    int64  `json:"open"`           // on the writer's server: connections in use for writes, of all servers; while held, the transactions that have not ended
	Reads   string `json:"reads"`          // server whose database answers reads
	Clients int    `json:"clients"`        // signed in
	Waiting int64  `json:"waiting"`        // for a place, or for a server that takes statements
	Pooled  int    `json:"pooled"`         // connections to a database that are kept for the next client
	Tunnels int64  `json:"tunnels"`        // connections of the others' routers

	Moved      uint64 `json:"moved"`       // since the start: sessions that went on with another connection
	Cut        uint64 `json:"cut"`         // since the start: sessions that could not
	RolledBack uint64 `json:"rolled_back"` // since the start: transactions that a switch ended
	Refused    uint64 `json:"refused"`     // since the start: answers that were the router's own errors
	Statements uint64 `json:"statements"`  // since the start
}

// DatabaseStatus is what a server's supervisor of the database says when it is inspected.
type DatabaseStatus struct {
	State   string `json:"state"`             // one of the Database… states
	Problem string `json:"problem,omitempty"` // why it is not synced, or what is to be done
	Writer  string `json:"writer,omitempty"`
	Epoch   int64  `json:"epoch"`

	UUID  string   `json:"uuid,omitempty"` // of the history that it holds
	Seqno int64    `json:"seqno"`          // the last position that is committed here; -1: not known
	Queue int64    `json:"queue"`          // transactions received and not yet applied
	Group []string `json:"group,omitempty"`

	Threads int64         `json:"threads"`        // open connections to mariadbd
	Free    uint64        `json:"free,omitempty"` // bytes on the data folder's disk
	Copy    *DatabaseCopy `json:"copy,omitempty"` // the full copy that it is receiving
	Checked time.Time     `json:"checked"`        // when this was found

	Committed int64            `json:"committed,omitempty"` // up to which is known to be on the writer's disk
	Choices   []DatabaseChoice `json:"choices,omitempty"`   // while no node is synced: who could start, and what that would lose
}

// DatabaseCopy is how far a full copy has come.
type DatabaseCopy struct {
	Bytes   int64 `json:"bytes"`
	Total   int64 `json:"total,omitempty"` // about; 0: not known
	Percent int   `json:"percent"`
}

// DatabaseChoice is what would be lost if server started the group alone.
type DatabaseChoice struct {
	Server string   `json:"server"`
	Seqno  int64    `json:"seqno"`
	Loses  []string `json:"loses"` // in words; empty: nothing that is known of
	Lose   []string `json:"lose"`  // servers whose data would be given up, as far as they hold more or other
}
