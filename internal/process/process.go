// Package process starts programs that outlive the program that started them,
// and finds them again: node may be killed or upgraded, and the next node
// adopts the workers, mariadbd and the app's instances that run.
//
// Each process leads a session and process group of its own, so that it can be
// ended with all its children, and writes its output to a file, which has no
// reader that could die. A record on disk (pid, start time, the caller's
// note) identifies it; the kernel's start time guards against a pid used
// twice. Death is seen through a pidfd (pidfd_open(2)), which works for
// children and for adopted processes alike; descriptors that a process was
// given are got back by pidfd_getfd(2).
//
// A confined process (Spec.Confine) and all that it starts can win no
// privilege: no_new_privs is set and its capability bounding set is empty.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to start.
type Spec struct {
	Name  string   // unique on the server; names the record
	Path  string   // absolute path of the program
	Args  []string // without the program's name
	Env   []string // the whole environment; nothing is inherited
	Dir   string   // working folder; empty: /
	User  string   // user to run as, with that user's group only; empty: as the caller
	Files []File   // handed over as descriptors 3, 4, …
	Log   string   // file that output is appended to; made with mode 0640 if it is not there
	Note  string   // kept in the record for the caller, for example a hash of the settings; no secrets
	Umask int      // file mode mask, as for umask(1); 0 keeps the caller's

	Confine    bool    // for good without new privileges (no set-user-ID, no capabilities), with all that it starts
	Cloneflags uintptr // namespaces to start it in, as for clone(2): a lab's servers
}

// File is an open file with the name by which it can be got back.
type File struct {
	Name string
	File *os.File
}

// Process is a program that Start started or Adopt found.
type Process struct {
	rec   record
	path  string
	child *exec.Cmd // nil when adopted
	done  chan struct{}
	err   error // why it ended; read after done is closed

	mu    sync.RWMutex // whoever uses pidfd or the record's name reads, whoever closes or changes it writes
	pidfd int          // -1 when it was let go of
}

// ErrNone is returned by Adopt when no such process runs.
var ErrNone = errors.New("no such process runs")

// Start starts s and records it in the folder records. The files of s may be
// closed by the caller afterwards.
func Start(records string, s Spec) (*Process, error) {
	cmd, log, err := command(s)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer func() { _ = log.Close() }()
	if err := start(cmd, s); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	p := &Process{
		rec:   record{Name: s.Name, PID: cmd.Process.Pid, Note: s.Note, Started: time.Now()},
		path:  filepath.Join(records, s.Name+".json"),
		child: cmd,
		done:  make(chan struct{}),
		pidfd: -1,
	}
	for _, f := range s.Files {
		p.rec.Files = append(p.rec.Files, f.Name)
	}
	if err := p.remember(); err != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		p.forget()
		return nil, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go p.wait()
	return p, nil
}

func command(s Spec) (*exec.Cmd, *os.File, error) {
	cmd := exec.Command(s.Path, s.Args...)
	cmd.Env = s.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Dir = s.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: s.Cloneflags}
	if s.User != "" {
		cred, err := Credential(s.User)
		if err != nil {
			return nil, nil, err
		}
		cmd.SysProcAttr.Credential = cred
	}
	for _, f := range s.Files {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.File)
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	return cmd, log, nil
}

// Credential returns the ids of a user, for starting a process as that user with its own group only.
func Credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// Adopt finds the process that was recorded in the folder records under name.
// It returns ErrNone, and removes the record, if that process has ended.
func Adopt(records, name string) (*Process, error) {
	path := filepath.Join(records, name+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("adopt %s: %w", name, err)
	}
	p := &Process{path: path, done: make(chan struct{}), pidfd: -1}
	if err := json.Unmarshal(data, &p.rec); err != nil {
		return nil, fmt.Errorf("adopt %s: read record %s: %w", name, path, err)
	}
	p.rec.Name = name // it may have been renamed
	err = p.find()
	if errors.Is(err, ErrNone) {
		_ = os.Remove(path)
		return nil, ErrNone
	}
	if err != nil {
		// It may well run: whoever took this for "none" would start it twice.
		return nil, fmt.Errorf("adopt %s: %w", name, err)
	}
	go p.wait()
	return p, nil
}

// wait blocks until the process has ended.
func (p *Process) wait() {
	defer close(p.done)
	if p.child != nil {
		p.err = p.child.Wait()
		return
	}
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if !errors.Is(err, unix.EINTR) {
			p.err = errors.New("ended (it was adopted, so its exit status is not known)")
			return
		}
	}
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how it ended; nil while it runs and after exit status 0.
func (p *Process) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// PID is the process's id.
func (p *Process) PID() int { return p.rec.PID }

// Note is what the caller gave in Spec.Note.
func (p *Process) Note() string { return p.rec.Note }

// Started is when it was started.
func (p *Process) Started() time.Time { return p.rec.Started }

// Signal sends sig to the process alone. It is no error if it has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.pidfd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signal %s: %w", p.rec.Name, err)
	}
	return nil
}

// Stop asks the process to end by sig, waits up to grace or until ctx ends,
// then kills its whole group: what it leaves behind (a helper's helper) dies
// too. Its record is removed. It returns when the process is gone.
func (p *Process) Stop(ctx context.Context, sig syscall.Signal, grace time.Duration) error {
	if err := p.Signal(sig); err != nil {
		return err
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
	case <-ctx.Done():
	}
	p.KillGroup()
	<-p.done
	p.forget()
	return nil
}

// KillGroup kills what is left of the process's group, at once. After Release
// it does nothing: the pid may be another's by then.
func (p *Process) KillGroup() {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.pidfd < 0 {
		return
	}
	// The group's id cannot be another's while a member of it lives; if none
	// does, the pid may have been used anew.
	if start, _, err := stat(p.rec.PID); err == nil && start != p.rec.Start {
		return
	}
	_ = syscall.Kill(-p.rec.PID, syscall.SIGKILL)
}

// Rename records the process under another name, in the place of whatever was
// recorded there. If it fails the former record stands.
func (p *Process) Rename(name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	path := filepath.Join(filepath.Dir(p.path), name+".json")
	if err := os.Rename(p.path, path); err != nil {
		return fmt.Errorf("rename record of %s: %w", p.rec.Name, err)
	}
	p.path, p.rec.Name = path, name
	return nil
}

// Release lets go of an ended process: the record and the descriptor. It may
// be called more than once. A process that still runs is not let go of.
func (p *Process) Release() {
	select {
	case <-p.done:
		p.forget()
	default:
	}
}

func (p *Process) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return
	}
	p.discard()
	_ = unix.Close(p.pidfd)
	p.pidfd = -1
}

// Files gets back the descriptors that the process was started with, from the
// running process itself (pidfd_getfd(2), needs CAP_SYS_PTRACE). The caller
// closes them.
func (p *Process) Files() ([]File, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var files []File
	for i, name := range p.rec.Files {
		fd, err := unix.PidfdGetfd(p.pidfd, 3+i, 0)
		if err != nil {
			for _, f := range files {
				_ = f.File.Close()
			}
			return nil, fmt.Errorf("take descriptor %s back from %s: %w", name, p.rec.Name, err)
		}
		files = append(files, File{Name: name, File: os.NewFile(uintptr(fd), name)})
	}
	return files, nil
}
