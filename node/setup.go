package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"trivet/certificate"
	"trivet/internal/atomicfile"
)

// Setup is what a server must have on its disk before its first node starts.
type Setup struct {
	Name       string
	Shared     int // how many servers share the machine; 0: it has its own
	Declared   Declared
	Identities *certificate.Authority // signs the servers' identities
	Visitors   *certificate.Authority // signs what browsers see in the lab
}

// Write writes the setup into lib, the folder that the server sees as part.LibDir.
func (s Setup) Write(lib string) error {
	a := agreed{Declared: s.Declared, Secrets: map[string]string{}}
	if err := os.MkdirAll(filepath.Join(lib, AuthorityDir), 0o700); err != nil {
		return fmt.Errorf("set up server %s: %w", s.Name, err)
	}
	if err := writeAuthority(lib, "identities", s.Identities); err != nil {
		return err
	}
	if err := writeAuthority(lib, "visitors", s.Visitors); err != nil {
		return err
	}
	who, err := json.Marshal(Identity{Name: s.Name, Shared: s.Shared})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(lib, IdentityFile), who, 0o600, -1, -1); err != nil {
		return err
	}
	// Last, for it is what Kept looks for: a setup that broke off is none.
	return a.save(filepath.Join(lib, LastGoodFile))
}

func writeAuthority(lib, name string, a *certificate.Authority) error {
	cert, key := a.PEM()
	dir := filepath.Join(lib, AuthorityDir)
	if err := atomicfile.Write(filepath.Join(dir, name+".key"), key, 0o600, -1, -1); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name+".crt"), cert, 0o644, -1, -1)
}

// Kept returns the site that the folder lib was last good with, and false if
// no server has been set up there.
func Kept(lib string) (Declared, bool, error) {
	a, err := load(filepath.Join(lib, LastGoodFile))
	if errors.Is(err, os.ErrNotExist) {
		return Declared{}, false, nil
	}
	return a.Declared, err == nil, err
}

// VisitorsCA is the path, inside the folder lib, of the root that browsers must trust in the lab.
func VisitorsCA(lib string) string { return filepath.Join(lib, AuthorityDir, "visitors.crt") }

// Control is the path of the control socket inside run, the folder that the server sees as part.RunDir.
func Control(run string) string { return filepath.Join(run, ControlSocket) }
