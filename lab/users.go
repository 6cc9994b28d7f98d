package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"trivet/internal/account"
	"trivet/internal/atomicfile"
	"trivet/internal/part"
)

// users are the system users that a server needs and that trivet makes.
// part.UserMySQL is not among them: it comes with the database's package.
var users = []string{part.UserBalancer, part.UserWeb, part.UserRouter, part.UserMonitor, part.UserApp}

// madeUsers remembers which users the labs of this machine made; the rest were there before.
func madeUsers() string { return filepath.Join(Root, "users.json") }

// EnsureUsers makes the system users of the parts that are missing, and
// remembers which it made. Network namespaces share this machine's users.
func EnsureUsers(ctx context.Context) error {
	if err := os.MkdirAll(Root, 0o700); err != nil {
		return fmt.Errorf("make users: %w", err)
	}
	unlock, err := lock(ctx, Root)
	if err != nil {
		return err
	}
	defer unlock()
	made, err := readUsers()
	if err != nil {
		return err
	}
	for _, name := range users {
		if made, err = ensureUser(made, name); err != nil {
			return err
		}
	}
	return nil
}

// ensureUser writes the name down before it makes the user: RemoveUsers would
// rather remove one user that is not there than leave one that is.
func ensureUser(made []string, name string) ([]string, error) {
	if there, err := account.Exists(name); there || err != nil {
		return made, err
	}
	if !slices.Contains(made, name) {
		made = append(made, name)
	}
	if err := writeUsers(made); err != nil {
		return made, err
	}
	_, err := account.Ensure(name)
	return made, err
}

// RemoveUsers removes the users that EnsureUsers made. A lab that is left needs
// them; see Remove. One that other processes of this machine run as stays, and
// stays remembered.
func RemoveUsers(ctx context.Context) error {
	unlock, err := lock(ctx, Root)
	if err != nil {
		return err
	}
	defer unlock()
	made, err := readUsers()
	if err != nil {
		return err
	}
	var used []string
	for _, name := range made {
		err := account.Remove(name)
		if errors.Is(err, account.ErrInUse) {
			used = append(used, name)
		} else if err != nil {
			return err
		}
	}
	if len(used) > 0 {
		return writeUsers(used)
	}
	if err := os.Remove(madeUsers()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove list of users: %w", err)
	}
	return nil
}

func readUsers() ([]string, error) {
	data, err := os.ReadFile(madeUsers())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read list of users: %w", err)
	}
	var made []string
	if err := json.Unmarshal(data, &made); err != nil {
		return nil, fmt.Errorf("read list of users %s: %w", madeUsers(), err)
	}
	return made, nil
}

func writeUsers(made []string) error {
	data, err := json.Marshal(made)
	if err != nil {
		return fmt.Errorf("write list of users: %w", err)
	}
	return atomicfile.Write(madeUsers(), data, 0o600, -1, -1)
}
