package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"trivet/internal/part"
)

// needed programs, and the Debian package that has each.
var needed = []struct{ program, pack string }{
	{"mariadbd", "mariadb-server"},
	{"mariadb-install-db", "mariadb-server"},
	{"mariadb-backup", "mariadb-backup"},
	{"mbstream", "mariadb-backup"},
}

const (
	galera   = "/usr/lib/galera/libgalera_smm.so"
	needDisk = 2 << 30 // bytes that three servers fill before they have data of their own
)

// preflight refuses a machine that lacks what the lab needs, before anything is made.
func preflight() error {
	missing := map[string]bool{}
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil {
			missing[n.pack] = true
		}
	}
	if _, err := os.Stat(galera); err != nil {
		missing["galera-4"] = true
	}
	if len(missing) > 0 {
		names := ""
		for _, p := range []string{"mariadb-server", "galera-4", "mariadb-backup"} {
			if missing[p] {
				names += " " + p
			}
		}
		return hinted{fmt.Errorf("this machine lacks%s", names), []string{"`make deps` installs what is needed, with the packaged service kept off; or apt-get install" + names}}
	}
	return enoughDisk()
}

// enoughDisk looks at the file system that will hold the lab.
func enoughDisk() error {
	dir := part.LibDir
	for {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	free := fs.Bavail * uint64(fs.Bsize)
	if free < needDisk {
		return hinted{fmt.Errorf("the disk that holds %s has %d MiB left; the lab needs %d", part.LibDir, free>>20, needDisk>>20), []string{"make room and run `trivet up` again; nothing was changed"}}
	}
	return nil
}
