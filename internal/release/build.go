package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"trivet/site"
)

// Build runs the site's build, if it has an app, and packs what it made and
// the static files into a tar in the system's folder for temporary files. Progress and the build's own
// output go to progress. A build that ctx ends is killed with its children.
func Build(ctx context.Context, s *site.Site, progress io.Writer) (*Release, error) {
	out, err := os.MkdirTemp("", "trivet-build-*")
	if err != nil {
		return nil, fmt.Errorf("build release: %w", err)
	}
	defer func() { _ = os.RemoveAll(out) }()
	var folders []source
	if s.App.Source != "" {
		app, err := buildApp(ctx, s, out, progress)
		if err != nil {
			return nil, fmt.Errorf("build release: %w", err)
		}
		folders = append(folders, app)
	}
	if s.Web.Static != "" {
		folders = append(folders, source{top: StaticDir, dir: s.Path(s.Web.Static), skip: hidden})
	}
	r, err := pack(ctx, folders)
	if err != nil {
		return nil, fmt.Errorf("build release: %w", err)
	}
	_, _ = fmt.Fprintf(progress, "release %.12s: %d files, %d KiB\n", r.Hash, r.Files, (r.Bytes+1023)>>10)
	return r, nil
}

// buildApp returns the folder that holds the app's files: what the build put
// into out, or the source itself.
func buildApp(ctx context.Context, s *site.Site, out string, progress io.Writer) (source, error) {
	dir := s.Path(s.App.Source)
	if s.App.Build == "" {
		return source{top: AppDir, dir: dir, skip: versions}, nil
	}
	_, _ = fmt.Fprintf(progress, "building %s: %s\n", s.App.Source, strings.TrimSpace(s.App.Build))
	if err := run(ctx, s.App.Build, dir, out, progress); err != nil {
		return source{}, err
	}
	made, err := os.ReadDir(out)
	if err != nil {
		return source{}, err
	}
	if len(made) == 0 {
		return source{}, errors.New("app.build ended well but put nothing into $OUT")
	}
	return source{top: AppDir, dir: out}, nil
}

// run runs command by the shell, with the operator's environment and OUT.
func run(ctx context.Context, command, dir, out string, progress io.Writer) error {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OUT="+out)
	tail := &tail{next: progress}
	cmd.Stdout, cmd.Stderr = tail, tail
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("run app.build: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("run app.build in %s: %w\n%s", dir, err, tail.text())
	}
	return nil
}

// tail passes output on and keeps the end of it for an error's text.
type tail struct {
	next io.Writer
	kept []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - tailBytes; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	_, _ = t.next.Write(p)
	return len(p), nil
}

func (t *tail) text() string { return strings.TrimRight(string(t.kept), "\n") }

// hidden keeps names that begin with a dot from the public, .well-known apart (RFC 8615).
func hidden(rel string) bool {
	base := filepath.Base(rel)
	return strings.HasPrefix(base, ".") && rel != ".well-known"
}

// versions leaves out the history that git keeps beside the source.
func versions(rel string) bool { return filepath.Base(rel) == ".git" }
