package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"trivet/cluster"
	"trivet/internal/atomicfile"
	"trivet/internal/part"
	"trivet/site"
)

// Keys in the cluster. What is under statePrefix makes up the State of every
// server and is watched; the rest is looked up when needed.
const (
	statePrefix   = "state/"
	keyDeclared   = statePrefix + "declared"
	keyAddress    = statePrefix + "address"
	keyDatabase   = statePrefix + "database"
	keyRecord     = statePrefix + "database-record"
	keyDrained    = statePrefix + "drained"
	keyTickets    = statePrefix + "tickets"
	keyRotation   = statePrefix + "rotation"
	keyBackup     = statePrefix + "backup"        // what became of the database's copies
	keyBackupWork = statePrefix + "backup-holder" // server that makes them
	prefixLive    = statePrefix + "live/"
	prefixSecret  = statePrefix + "secret/"
	prefixHistory = "history/"
	prefixToken   = "token/"
	keyRotator    = "role/tickets" // held by the server that makes new ticket keys
)

// Declared is a site file that was applied, with what belongs to it.
type Declared struct {
	Revision    int64      `json:"revision"` // 1, 2, …
	Site        *site.Site `json:"site"`
	Release     string     `json:"release,omitempty"`     // hash; empty: neither app nor static files
	Environment string     `json:"environment,omitempty"` // content of the secrets file
	At          time.Time  `json:"at"`
}

// live is what a node announces of itself under its lease.
type live struct {
	Database part.DatabaseMember `json:"database"`
	Revision int64               `json:"revision"`
	Accepts  string              `json:"accepts,omitempty"` // this and what follows: see part.Member
	Uses     string              `json:"uses,omitempty"`
	Holds    int64               `json:"holds,omitempty"`
	Problems map[string]string   `json:"problems,omitempty"`
}

// agreed is the content of statePrefix.
type agreed struct {
	Declared Declared            `json:"declared"`
	Role     part.DatabaseRole   `json:"role"`
	Record   part.DatabaseRecord `json:"record,omitzero"`
	Secrets  map[string]string   `json:"secrets"`
	Drained  []string            `json:"drained,omitempty"` // servers that get no new requests
	Tickets  []ticketKey         `json:"tickets,omitempty"` // newest first
	Rotation rotation            `json:"rotation"`          // of the app's database password
	Backup   part.BackupRole     `json:"backup,omitzero"`
	Holder   string              `json:"-"`
	Live     map[string]live     `json:"-"`

	Provisional provisionalRole `json:"provisional,omitzero"` // not agreed; see provisional
	Own         *ownRole        `json:"own,omitempty"`        // not agreed; see ownRole
}

// parse reads the watched content. What is not there stays as it is in last:
// an empty cluster does not erase the last good state.
func parse(last agreed, content map[string]cluster.Value) (agreed, error) {
	a := last
	a.Secrets, a.Holder, a.Live, a.Backup.Holder = maps.Clone(last.Secrets), "", map[string]live{}, ""
	if a.Secrets == nil {
		a.Secrets = map[string]string{}
	}
	var errs []error
	for key, v := range content {
		if err := a.put(key, v.Data); err != nil {
			errs = append(errs, fmt.Errorf("read %s from the cluster: %w", key, err))
		}
	}
	a.Backup.Holder = string(content[keyBackupWork].Data)
	return a, errors.Join(errs...)
}

func (a *agreed) put(key string, data []byte) error {
	switch {
	case key == keyDeclared:
		var d Declared
		if err := json.Unmarshal(data, &d); err != nil {
			return err
		}
		if d.Site == nil {
			return errNoSite
		}
		a.Declared = d
	case key == keyAddress:
		a.Holder = string(data)
	case key == keyDatabase:
		return decode(data, &a.Role)
	case key == keyRecord:
		return decode(data, &a.Record)
	case key == keyDrained:
		return decode(data, &a.Drained)
	case key == keyBackup:
		return decode(data, &a.Backup)
	case key == keyTickets:
		return decode(data, &a.Tickets)
	case key == keyRotation:
		return decode(data, &a.Rotation)
	case strings.HasPrefix(key, prefixLive):
		var l live
		if err := json.Unmarshal(data, &l); err != nil {
			return err
		}
		a.Live[strings.TrimPrefix(key, prefixLive)] = l
	case strings.HasPrefix(key, prefixSecret):
		a.Secrets[strings.TrimPrefix(key, prefixSecret)] = string(data)
	}
	return nil
}

// decode sets v, unless data is not what v can hold.
func decode[T any](data []byte, v *T) error {
	var read T
	if err := json.Unmarshal(data, &read); err != nil {
		return err
	}
	*v = read
	return nil
}

var errNoSite = errors.New("it declares no site")

// load reads the last good copy from this server's disk.
func load(path string) (agreed, error) {
	a := agreed{Live: map[string]live{}, Secrets: map[string]string{}}
	data, err := os.ReadFile(path)
	if err != nil {
		return a, fmt.Errorf("read last good state: %w", err)
	}
	if err := json.Unmarshal(data, &a); err != nil {
		return a, fmt.Errorf("read last good state %s: %w", path, err)
	}
	if a.Declared.Site == nil {
		return a, fmt.Errorf("read last good state %s: it names no site", path)
	}
	a.Backup.Holder = ""
	return a, nil
}

// save writes the last good copy, for a start without the cluster.
func (a agreed) save(path string) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write last good state: %w", err)
	}
	return atomicfile.Write(path, data, 0o600, -1, -1)
}
