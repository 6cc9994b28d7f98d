// Package account makes and removes the system users that trivet's processes
// run as. It uses the system's own useradd(8) and userdel(8), for they know
// where this system keeps its users and what else must be told.
package account

import (
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"strings"
)

// ErrInUse says that processes run as the user.
var ErrInUse = errors.New("processes run as this user")

// inUse is userdel's exit status for that (userdel(8)).
const inUse = 8

// Ensure makes the system user name, without home or shell and with a group of
// its own name, and says whether it did: an existing user is left as it is.
func Ensure(name string) (made bool, err error) {
	if there, err := Exists(name); there || err != nil {
		return false, err
	}
	args := []string{"--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"}
	if err := run("useradd", append(args, groupOption(name), name)...); err != nil {
		return false, fmt.Errorf("make user %s: %w", name, err)
	}
	return true, nil
}

// Exists reports whether there is a user of that name.
func Exists(name string) (bool, error) {
	_, err := user.Lookup(name)
	if unknown := user.UnknownUserError(""); errors.As(err, &unknown) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up user %s: %w", name, err)
	}
	return true, nil
}

// groupOption is for a group that outlived its user, which useradd would not make again.
func groupOption(name string) string {
	if _, err := user.LookupGroup(name); err == nil {
		return "--gid=" + name
	}
	return "--user-group"
}

// Remove deletes the user name and its group, or returns ErrInUse. It is no
// error if there is none.
func Remove(name string) error {
	if _, err := user.Lookup(name); err == nil {
		err := run("userdel", name)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == inUse {
			return fmt.Errorf("remove user %s: %w", name, ErrInUse)
		}
		if err != nil {
			return fmt.Errorf("remove user %s: %w", name, err)
		}
	}
	if _, err := user.LookupGroup(name); err == nil {
		if err := run("groupdel", name); err != nil {
			return fmt.Errorf("remove group %s: %w", name, err)
		}
	}
	return nil
}

// run runs one of the programs of Debian's package passwd; its complaint is the error.
func run(program string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + program); err != nil {
			return fmt.Errorf("the program %s is missing: install the package passwd (shadow-utils)", program)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
