package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"trivet/internal/netns"
	"trivet/internal/part"
)

// seen says where a server sees its own folders. The order counts: behind the
// last one lie the labs' folders themselves.
var seen = []struct{ kind, at string }{
	{Run, part.RunDir},
	{Log, part.LogDir},
	{Lib, part.LibDir},
}

// mountAll gives the server its own view of the file system: dir is the
// server's folder on this machine, program what must stay visible, and be there.
func mountAll(dir, program string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := forgetNamespaces(); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := mountTemporary(program); err != nil {
		return err
	}
	for _, m := range seen {
		if err := unix.Mount(filepath.Join(dir, m.kind), m.at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("find the server's program: %w", err)
	}
	return nil
}

// forgetNamespaces drops this server's copies of the mounts that keep other
// servers' network namespaces alive.
func forgetNamespaces() error {
	names, err := filepath.Glob(filepath.Join(netns.Dir, "*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unmount(name, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", name, err)
		}
	}
	return nil
}

// mountTemporary gives the server a /tmp of its own, in memory. A program
// that lies in this machine's /tmp stays visible, with its folder.
func mountTemporary(program string) error {
	folder := filepath.Dir(program)
	if !strings.HasPrefix(folder+"/", "/tmp/") || folder == "/tmp" {
		return mountTmp()
	}
	behind, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open folder %s: %w", folder, err)
	}
	defer func() { _ = unix.Close(behind) }()
	if err := mountTmp(); err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", folder, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", behind), folder, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", folder, err)
	}
	return nil
}

func mountTmp() error {
	if err := unix.Mount("tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=256m,mode=1777"); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	return nil
}
