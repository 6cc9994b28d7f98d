package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/atomicfile"
)

// record is what is written to disk.
type record struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"` // field 22 of /proc/pid/stat, clock ticks after boot
	Files   []string  `json:"files,omitempty"`
	Note    string    `json:"note,omitempty"`
	Started time.Time `json:"started"`
}

// Running returns the pid of the process that was recorded in the folder
// records under name, or ErrNone. Unlike Adopt it keeps hold of nothing.
func Running(records, name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(records, name+".json"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, ErrNone
	}
	if err != nil {
		return 0, fmt.Errorf("look for %s: %w", name, err)
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return 0, fmt.Errorf("look for %s: read its record: %w", name, err)
	}
	if !alive(rec) {
		return 0, ErrNone
	}
	return rec.PID, nil
}

// find opens the recorded process and makes sure that it is the same one;
// ErrNone if it has ended.
func (p *Process) find() error {
	fd, err := unix.PidfdOpen(p.rec.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return ErrNone // nobody has the pid, or a thread of another process has it
	case err != nil:
		return fmt.Errorf("open pid %d: %w", p.rec.PID, err)
	}
	// Looked at after opening: the descriptor is of this very process.
	if !alive(p.rec) {
		_ = unix.Close(fd)
		return ErrNone
	}
	p.pidfd = fd
	return nil
}

// remember opens the child's pidfd and writes its record. A child that has
// ended already is a zombie until wait, and is recorded like any other.
func (p *Process) remember() error {
	fd, err := unix.PidfdOpen(p.rec.PID, 0)
	if err != nil {
		return err
	}
	p.pidfd = fd
	if p.rec.Start, _, err = stat(p.rec.PID); err != nil {
		return err
	}
	data, err := json.Marshal(p.rec)
	if err != nil {
		return err
	}
	return atomicfile.Write(p.path, data, 0o600, -1, -1)
}

// alive reports whether the recorded process, and not a later one with its
// pid, nor a thread that has the number now, still runs.
func alive(rec record) bool {
	start, ended, err := stat(rec.PID)
	return err == nil && !ended && start == rec.Start && leads(rec.PID)
}

// leads reports whether pid is a process and not one of a process's threads:
// those have a folder in /proc too, though no listing shows it (proc(5)).
func leads(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	return strings.Contains(string(data), fmt.Sprintf("\nTgid:\t%d\n", pid))
}

// stat reads fields 22 (start time) and 3 (whether it is a zombie) of /proc/pid/stat (proc(5)).
func stat(pid int) (start uint64, ended bool, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	// The second field is the name in parentheses and may hold anything.
	i := strings.LastIndex(string(data), ") ")
	if i < 0 {
		return 0, false, ErrNone
	}
	fields := strings.Fields(string(data)[i+2:])
	if len(fields) < 20 {
		return 0, false, ErrNone
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0] == "X" || fields[0] == "Z", err
}

// discard removes the record, unless it is already that of a later process of this name.
func (p *Process) discard() {
	data, err := os.ReadFile(p.path)
	var now record
	if err == nil && json.Unmarshal(data, &now) == nil && (now.PID != p.rec.PID || now.Start != p.rec.Start) {
		return
	}
	_ = os.Remove(p.path)
}
