package node

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"trivet/internal/part"
	"trivet/internal/release"
)

// keepReleases is how many of the newest releases stay on a server, for a way back.
const keepReleases = 3

// prune removes releases that neither the site wants nor anything runs from, the newest apart.
func (r *releases) prune() {
	r.mu.Lock()
	keep := []string{r.want, r.have}
	r.mu.Unlock()
	keep = append(keep, newest(part.ReleaseDir, keepReleases)...)
	keep = append(keep, inUse("/proc", part.ReleaseDir)...)
	if err := release.Prune(part.ReleaseDir, keep...); err != nil {
		r.log.Warn("prune releases", "err", err)
	}
}

// newest lists the n folders of dir that were written last.
func newest(dir string, n int) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // then there is nothing to prune either
	}
	var infos []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			infos = append(infos, info)
		}
	}
	slices.SortFunc(infos, func(a, b os.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	var names []string
	for _, info := range infos[:min(n, len(infos))] {
		names = append(names, info.Name())
	}
	return names
}

// inUse lists the folders of dir in which a process of this server works, or
// from which it was started; see proc(5).
func inUse(proc, dir string) []string {
	var names []string
	for _, link := range []string{"cwd", "exe"} {
		paths, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", link))
		for _, p := range paths {
			at, err := os.Readlink(p)
			if rest, ok := strings.CutPrefix(at, dir+"/"); ok && err == nil {
				name, _, _ := strings.Cut(rest, "/")
				names = append(names, name)
			}
		}
	}
	return names
}
