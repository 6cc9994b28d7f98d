package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Manifest describes one full backup. It is written last: without it there is
// no backup. Its MAC is made with the backup key, so that it cannot be forged,
// and it holds the digest of every piece.
type Manifest struct {
	Version   int       `json:"version"`
	ID        string    `json:"id"`     // when and where it was made: 20261123-143205-s3
	Server    string    `json:"server"` // that it was made on
	UUID      string    `json:"uuid"`   // of the history that it belongs to
	GTID      string    `json:"gtid"`   // of the last transaction in it
	Log       string    `json:"log"`    // the chain of the binary log's pieces that leads on from it; see chainOf
	At        time.Time `json:"at"`     // of that position
	MariaDB   string    `json:"mariadb"`
	Raw       int64     `json:"raw"`  // bytes before compression
	Size      int64     `json:"size"` // bytes of all pieces
	Recipient string    `json:"recipient"`
	Pieces    []Piece   `json:"pieces"`
	MAC       string    `json:"mac"`
}

// Piece is one part of a backup's sealed stream, in the stream's order.
type Piece struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

const (
	manifestVersion = 1
	manifestFile    = "manifest.json"
	fullPrefix      = "full/"
	logPrefix       = "log/"
	idTime          = "20060102-150405"
)

var idForm = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[a-z][a-z0-9-]{0,31}$`)

// chainOf names a chain of pieces of the binary log, which begins with a backup
// and goes on from backup to backup for as long as nothing is missing: the
// history, and the moment. Another chain is never mixed with it, for after a
// gap, or when the cluster was started from a server that lacked the last
// transactions, the same GTID may mean another transaction.
func chainOf(uuid, id string) string { return uuid + "." + id[:min(len(id), len(idTime))] }

func manifestName(id string) string     { return fullPrefix + id + "/" + manifestFile }
func pieceName(id string, n int) string { return fmt.Sprintf("%s%s/%05d", fullPrefix, id, n+1) }

// backupID is the id of the backup that the object name belongs to.
func backupID(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, fullPrefix)
	if !ok {
		return "", false
	}
	id, _, ok := strings.Cut(rest, "/")
	return id, ok && idForm.MatchString(id)
}

// encode signs m.
func (m Manifest) encode(k key) ([]byte, error) {
	m.Version, m.Recipient, m.MAC = manifestVersion, k.recipient, ""
	plain, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m.MAC = k.sign(plain)
	return json.MarshalIndent(m, "", "  ")
}

// decodeManifest reads the manifest of backup id and makes sure that it is what was signed.
func decodeManifest(id string, data []byte, k key) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read manifest of backup %s: it is damaged: %w", id, err)
	}
	if m.Version != manifestVersion {
		return m, fmt.Errorf("read manifest of backup %s: version %d is not %d", id, m.Version, manifestVersion)
	}
	if err := k.fits("backup "+id, m.Recipient); err != nil {
		return m, err
	}
	mac := m.MAC
	m.MAC = ""
	plain, err := json.Marshal(m)
	if err != nil {
		return m, err
	}
	if !k.signed(plain, mac) || m.ID != id {
		return m, fmt.Errorf("read manifest of backup %s: %w", id, errForged)
	}
	m.MAC = mac
	return m, nil
}

var errForged = errors.New("it was changed after it was signed")
