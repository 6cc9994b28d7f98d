package node

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"trivet/internal/part"
)

// logFile is where a part's lines are. only keeps those of node's own log that speak of the part.
type logFile struct {
	name string
	only string
}

// logFiles of each part, in part.LogDir.
var logFiles = map[string][]logFile{
	part.Node:        {{name: "node.log"}, {name: "init.log"}},
	part.Balancer:    {{name: "balancer.log"}, {name: "access-balancer.log"}, {name: "node.log", only: "part=balancer"}},
	part.Firewall:    {{name: "node.log", only: "part=firewall"}},
	part.Certificate: {{name: "node.log", only: "part=certificate"}},
	part.Web:         {{name: "web.log"}, {name: "access-web.log"}, {name: "node.log", only: "part=web"}},
	part.App:         {{name: "app.log"}, {name: "node.log", only: "part=app"}},
	part.Database:    {{name: "mariadbd.log"}, {name: "router.log"}, {name: "node.log", only: "part=database"}},
	part.Monitor:     {{name: "monitor.log"}, {name: "node.log", only: "part=monitor"}},
}

// LogParts lists the names that have logs, for messages and completion.
func LogParts() []string { return append(slices.Clone(part.Names), part.Node) }

// handleLogs streams the last lines of a part's logs, and with follow=1 what comes after.
func (n *Node) handleLogs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	lines, err := strconv.Atoi(q.Get("lines"))
	if err != nil || lines < 0 || lines > 100_000 {
		http.Error(w, "lines is a number up to 100000", http.StatusBadRequest)
		return
	}
	files, ok := logFiles[q.Get("part")]
	if !ok {
		http.Error(w, "part is one of "+strings.Join(LogParts(), ", "), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	var tails []*tail
	for _, f := range files {
		t := &tail{path: filepath.Join(part.LogDir, f.name), only: f.only}
		tails = append(tails, t)
		if err := t.last(w, lines); err != nil {
			n.log.Warn("read log", "file", f.name, "err", err)
		}
	}
	if q.Get("follow") == "1" {
		follow(r.Context(), w, tails)
	}
}

// tail reads one log file from where it stopped.
type tail struct {
	path, only string
	offset     int64
}

const tailWindow = 1 << 20 // bytes looked at for the last lines

// last writes the last lines of the file.
func (t *tail) last(w io.Writer, lines int) error {
	f, size, err := t.open()
	if f == nil || err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	from := max(0, size-tailWindow)
	data := make([]byte, size-from)
	n, err := f.ReadAt(data, from) // fewer than size if it was rotated just now
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	data = data[:bytes.LastIndexByte(data[:n], '\n')+1] // an unfinished line waits for its end
	t.offset = from + int64(len(data))
	if from > 0 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	found := t.filter(data)
	if len(found) > lines {
		found = found[len(found)-lines:]
	}
	for _, l := range found {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}

func (t *tail) filter(data []byte) []string {
	var out []string
	for l := range strings.Lines(string(data)) {
		if t.only == "" || strings.Contains(l, t.only) {
			out = append(out, strings.TrimRight(l, "\n"))
		}
	}
	return out
}

// open returns nil when the file is not there (yet).
func (t *tail) open() (*os.File, int64, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// more writes whole lines that were added since the last call. A file that
// became shorter was rotated and is read from its start.
func (t *tail) more(w io.Writer) error {
	f, size, err := t.open()
	if f == nil || err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if size < t.offset {
		t.offset = 0
	}
	r := bufio.NewReader(io.NewSectionReader(f, t.offset, size-t.offset))
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			return nil // an unfinished line waits for its end
		}
		t.offset += int64(len(l))
		if t.only == "" || strings.Contains(l, t.only) {
			if _, err := io.WriteString(w, l); err != nil {
				return err
			}
		}
	}
}

func follow(ctx context.Context, w http.ResponseWriter, tails []*tail) {
	out := http.NewResponseController(w)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if out.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, t := range tails {
			if t.more(w) != nil {
				return
			}
		}
	}
}

const (
	logLimit  = 32 << 20 // bytes after which a log is rotated
	logLookup = 30 * time.Second
)

// rotateLogs keeps every log file bounded: the present content is copied to
// NAME.1 and the file is cut to nothing. Writers append, so they go on at the
// start; lines written between copy and cut (microseconds) are lost.
func (n *Node) rotateLogs(ctx context.Context) {
	tick := time.NewTicker(logLookup)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		paths, _ := filepath.Glob(filepath.Join(part.LogDir, "*.log"))
		for _, p := range paths {
			if err := rotate(p); err != nil {
				n.log.Warn("rotate log", "file", p, "err", err)
			}
		}
	}
}

func rotate(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() < logLimit {
		return err
	}
	if err := copyFile(path+".1", path); errors.Is(err, syscall.ENOSPC) {
		// A full disk has no room for the copy; what is needed most is room.
		_ = os.Remove(path + ".1")
	} else if err != nil {
		return err
	}
	return os.Truncate(path, 0)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
