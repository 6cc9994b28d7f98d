package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"trivet/database"
	"trivet/internal/part"
)

// Shell is a person at the database's prompt. Who opens one is kept in node's log.
type Shell struct {
	By       string        `json:"by"` // who, as the machine knows them
	ReadOnly bool          `json:"read_only"`
	Args     []string      `json:"args,omitempty"`
	Lasted   time.Duration `json:"lasted,omitempty"` // nanoseconds; it has ended
}

// Account is how to sign in to the database on a server's socket.
type Account struct {
	User     string `json:"user"`
	Password string `json:"password,omitempty"` // empty: the socket tells who it is
	Database string `json:"database"`
}

// handleShell notes that a shell was opened or has ended, and answers how to sign in.
func (n *Node) handleShell(r *http.Request) (any, error) {
	var s Shell
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&s); err != nil {
		return nil, fmt.Errorf("read who opens a shell: %w", err)
	}
	log := n.log.With("part", part.Database, "by", s.By, "read_only", s.ReadOnly, "args", s.Args)
	if s.Lasted > 0 {
		log.Info("database shell closed", "lasted", s.Lasted.Round(time.Second))
		return Account{}, nil
	}
	state := n.state()
	a := Account{User: "root", Database: state.Site.Database.Name}
	if s.ReadOnly {
		a.User, a.Password = database.Reader, state.Secrets[part.SecretReader]
		if a.Password == "" {
			return nil, errors.New("open database shell: there is no account for looking yet")
		}
	}
	log.Info("database shell opened")
	return a, nil
}
