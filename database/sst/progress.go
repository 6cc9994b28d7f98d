package sst

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Progress is how far a full copy has come; ProgressFile holds it.
type Progress struct {
	Bytes int64 `json:"bytes"` // received
	Total int64 `json:"total"` // about how many there will be; 0: not known
}

// Percent is how much of the copy is there, 99 at most; false if that is not known.
func (p Progress) Percent() (int, bool) {
	if p.Total <= 0 {
		return 0, false
	}
	return int(min(99, p.Bytes*100/p.Total)), true
}

// ReadProgress reads how far the copy into a data folder has come; false if none is under way.
func ReadProgress(dir string) (Progress, bool) {
	var p Progress
	data, err := os.ReadFile(filepath.Join(dir, ProgressFile))
	if err != nil {
		return p, false
	}
	_ = json.Unmarshal(data, &p) // one that is just being written, or of another version, says nothing
	return p, true
}

const progressEvery = 200 * time.Millisecond

// progress is a copy that writes down how far it has come.
type progress struct {
	Progress

	r    io.Reader
	path string
	told time.Time
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.Bytes += int64(n)
	if time.Since(p.told) >= progressEvery {
		_ = p.write() // what was written before still says that there is half of a copy
	}
	return n, err
}

func (p *progress) write() error {
	p.told = time.Now()
	data, err := json.Marshal(p.Progress)
	if err != nil {
		return err
	}
	return os.WriteFile(p.path, data, 0o600)
}

// sizeOf adds up what mariadb-backup will read of a data folder: all but
// Galera's own files and the binary logs. Holes do not count.
func sizeOf(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || notCopied(e.Name()) {
			return nil
		}
		if info, err := e.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

func notCopied(name string) bool {
	return name == "galera.cache" || name == "ib_logfile0" || strings.HasPrefix(name, "ibtmp") || strings.HasPrefix(name, "bin.")
}
