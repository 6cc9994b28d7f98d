package database

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trivet/database/sst"
	"trivet/internal/part"
	"trivet/internal/process"
)

const (
	recordName = "mariadbd"
	searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"
	lookLimit  = 2 * time.Minute // for reading the position, which repeats what the redo log holds
	noteAlone  = "alone"         // in the process record: it was started as the first of the group
)

// folder is what the data folder holds.
type folder struct {
	looked  bool
	partial bool   // half of a copy
	made    bool   // it holds a database, with or without a history
	uuid    string // of its history; empty: none
	seqno   int64
	err     error // why it is unreadable
}

// look reads the data folder. mariadbd must not run. The position always comes
// from mariadbd --wsrep-recover: a failed start overwrites the one in grastate.dat.
func look(ctx context.Context, p Paths) folder {
	f := folder{looked: true, seqno: -1}
	if exists(filepath.Join(p.Data, sst.ProgressFile)) {
		f.partial = true
		return f
	}
	f.made = exists(filepath.Join(p.Data, "ibdata1"))
	if !f.made {
		return f
	}
	limited, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	out, err := mysqlCommand(limited, "mariadbd", "--defaults-file="+p.Settings, "--wsrep-recover").CombinedOutput()
	if ctx.Err() != nil {
		return folder{}
	}
	if limited.Err() != nil {
		err = fmt.Errorf("no end after %v", lookLimit)
	}
	f.uuid, f.seqno, f.err = recovered(out, err)
	return f
}

var recoveredLine = regexp.MustCompile(`Recovered position: ([0-9a-f-]{36}):(-?[0-9]+)`)

// recovered reads the output of mariadbd --wsrep-recover.
func recovered(out []byte, err error) (string, int64, error) {
	m := recoveredLine.FindSubmatch(out)
	if m == nil {
		return "", -1, fmt.Errorf("recover position: no position in mariadbd's output (%w): %s", err, firstError(out))
	}
	if string(m[1]) == noUUID {
		return "", -1, nil
	}
	seqno, err := strconv.ParseInt(string(m[2]), 10, 64)
	if err != nil {
		return "", -1, fmt.Errorf("recover position: %w", err)
	}
	return string(m[1]), seqno, nil
}

// firstError is the first line that mariadbd marked as an error, for the later
// ones follow from it; or else the last line.
func firstError(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if _, text, ok := strings.Cut(line, "[ERROR] "); ok {
			return strings.TrimSpace(text)
		}
	}
	return lastError(out)
}

// lastError is the last line that mariadbd marked as an error, or else the
// last line that is not empty.
func lastError(out []byte) string {
	last, marked := "", ""
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if _, text, ok := strings.Cut(lines.Text(), "[ERROR] "); ok {
			marked = text
		}
		if text := strings.TrimSpace(lines.Text()); text != "" {
			last = text
		}
	}
	return cmp.Or(marked, last, "nothing was said")
}

// logTail is the end of a log file; empty if it cannot be read.
func logTail(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	const size = 8 << 10
	if info, err := f.Stat(); err == nil && info.Size() > size {
		_, _ = f.Seek(-size, io.SeekEnd)
	}
	tail, _ := io.ReadAll(io.LimitReader(f, size))
	return tail
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mysqlCommand is a short-lived program run as user mysql in a process group of its own.
func mysqlCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := name
	for dir := range strings.SplitSeq(searchPath, ":") {
		if exists(filepath.Join(dir, name)) {
			path = filepath.Join(dir, name)
			break
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Dir = []string{"PATH=" + searchPath}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cred, err := process.Credential(part.UserMySQL)
	if err != nil {
		cmd.Err = err
		return cmd
	}
	cmd.SysProcAttr.Credential = cred
	return cmd
}

// install makes a new, empty database in the data folder. Half of one is never
// left there: it is made beside it and renamed.
func install(ctx context.Context, p Paths) error {
	beside := p.Data + ".new"
	if err := os.RemoveAll(beside); err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	cred, err := process.Credential(part.UserMySQL)
	if err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	if err := makeFolder(beside, 0o700, int(cred.Uid), int(cred.Gid)); err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	// Nothing here needs to survive a crash, so nothing waits for the disk.
	out, err := mysqlCommand(ctx, "mariadb-install-db", "--no-defaults", "--datadir="+beside, "--force", "--skip-test-db", "--skip-name-resolve",
		"--auth-root-authentication-method=socket", "--auth-root-socket-user=mysql", "--innodb-flush-log-at-trx-commit=0",
		"--innodb-doublewrite=0", "--innodb-log-file-size=64M", "--performance-schema=OFF").CombinedOutput()
	if err != nil {
		return fmt.Errorf("install database: %w: %s", err, lastError(out))
	}
	if err := os.Remove(p.Data); err != nil && !errors.Is(err, os.ErrNotExist) {
		if err := wipeFolder(p.Data); err != nil {
			return fmt.Errorf("install database: %w", err)
		}
		if err := os.Remove(p.Data); err != nil {
			return fmt.Errorf("install database: %w", err)
		}
	}
	if err := os.Rename(beside, p.Data); err != nil {
		return fmt.Errorf("install database: %w", err)
	}
	return nil
}

// wipeFolder empties a data folder.
func wipeFolder(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("wipe data folder: %w", err)
	}
	// The mark goes last, so that a wipe that was interrupted is done again.
	for _, mark := range []bool{false, true} {
		for _, e := range entries {
			if (e.Name() == sst.ProgressFile) != mark {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("wipe data folder: %w", err)
			}
		}
	}
	return nil
}

// permitAlone readies a folder with a history for a start without a group.
func permitAlone(p Paths, f folder) error {
	if err := os.Remove(filepath.Join(p.Data, "gvwstate.dat")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if f.uuid == "" {
		return nil
	}
	state := fmt.Sprintf("# GALERA saved state\nversion: 2.1\nuuid:    %s\nseqno:   %d\nsafe_to_bootstrap: 1\n", f.uuid, f.seqno)
	cred, err := process.Credential(part.UserMySQL)
	if err != nil {
		return err
	}
	// Not atomically: Galera keeps the file open and rewrites it in place, padded with spaces.
	name := filepath.Join(p.Data, "grastate.dat")
	if err := os.WriteFile(name, []byte(state), 0o660); err != nil {
		return err
	}
	return os.Chown(name, int(cred.Uid), int(cred.Gid))
}

// launch starts mariadbd. donors are preferred as the source of what is missing.
func launch(p Paths, f folder, first bool, donors []string) (*process.Process, error) {
	args := []string{"--defaults-file=" + p.Settings}
	if f.uuid != "" {
		args = append(args, fmt.Sprintf("--wsrep-start-position=%s:%d", f.uuid, f.seqno))
	}
	note := ""
	if first {
		args = append(args, "--wsrep-new-cluster")
		note = noteAlone
	} else if len(donors) > 0 {
		args = append(args, "--wsrep-sst-donor="+strings.Join(donors, ",")+",") // the last comma: or any other
	}
	return process.Start(p.Records, process.Spec{
		Name: recordName, Path: "/usr/sbin/mariadbd", Args: args, User: part.UserMySQL, Confine: true, Log: p.Log, Note: note,
		Env: []string{"PATH=" + p.Run + ":" + searchPath},
	})
}
