package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// server is a MariaDB of the tests' own.
type server struct {
	dir  string
	port int
	cmd  *exec.Cmd
}

// startMariaDB makes and starts one with an empty database foobar.
func startMariaDB(t *testing.T) *server {
	t.Helper()
	for _, name := range []string{"mariadbd", "mariadb-install-db"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("needs MariaDB: there is no", name)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	_ = l.Close()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("mariadb-install-db", "--no-defaults", "--user="+me.Username, "--datadir="+s.dir,
		"--auth-root-authentication-method=normal", "--skip-test-db").CombinedOutput()
	if err != nil {
		t.Skipf("needs a database: mariadb-install-db: %v\n%s", err, out)
	}
	s.start(t, me.Username)
	t.Cleanup(func() { s.signal(syscall.SIGKILL); _ = s.cmd.Wait() })
	db, err := sql.Open("mysql", fmt.Sprintf("root@tcp(127.0.0.1:%d)/", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	deadline := time.Now().Add(30 * time.Second)
	for tick := time.Tick(50 * time.Millisecond); ; <-tick {
		if _, err = db.Exec("CREATE DATABASE IF NOT EXISTS foobar"); err == nil {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait for mariadbd: %v", err)
		}
	}
}

func (s *server) start(t *testing.T, as string) {
	t.Helper()
	s.cmd = exec.Command("mariadbd", "--no-defaults", "--user="+as, "--datadir="+s.dir, "--bind-address=127.0.0.1",
		"--port="+strconv.Itoa(s.port), "--socket="+filepath.Join(s.dir, "s.sock"), "--innodb-buffer-pool-size=16M", "--log-error="+filepath.Join(s.dir, "err.log"))
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (s *server) signal(sig os.Signal) { _ = s.cmd.Process.Signal(sig) }

func (s *server) board(t *testing.T) *board {
	t.Helper()
	st, err := openStore(fmt.Sprintf("mysql://root:@127.0.0.1:%d/foobar", s.port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.close() })
	return &board{log: slog.New(slog.NewTextHandler(io.Discard, nil)), store: st, server: "s1"}
}

// TestWithDatabase starts MariaDB once for all that needs it.
func TestWithDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a MariaDB")
	}
	s := startMariaDB(t)
	t.Run("migrations at once", func(t *testing.T) { migrationsAtOnce(t, s) })
	b := s.board(t)
	t.Run("posts and reads", func(t *testing.T) { postsAndReads(t, b) })
	t.Run("retried post", func(t *testing.T) { retriedPost(t, b) })
	t.Run("search", func(t *testing.T) { search(t, b) })
	t.Run("frozen", func(t *testing.T) { frozen(t, s, b) })
	t.Run("killed", func(t *testing.T) { killed(t, s, b) })
}

func migrationsAtOnce(t *testing.T, s *server) {
	var wg sync.WaitGroup
	for range 6 {
		st := s.board(t).store
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			st.migrateUntilDone(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)))
			if _, err := st.list(ctx, selection{limit: 1}); err != nil {
				t.Errorf("after the migration: %v", err)
			}
		})
	}
	wg.Wait()
}

func postJSON(b *board, author, text, id string) *http.Response {
	body := fmt.Sprintf(`{"author":%q,"text":%q,"id":%q}`, author, text, id)
	return send(b.routes(), "POST", "/api/messages", body, "Content-Type", "application/json")
}

func postsAndReads(t *testing.T, b *board) {
	form := url.Values{"author": {"Zoë"}, "text": {"first <i>line</i> 🙂\r\nsecond"}, "id": {"page-0001"}}.Encode()
	res := send(b.routes(), "POST", "/", form, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/#page-0001" {
		t.Fatalf("post: got %d to %q, want 303 to /#page-0001: %s", res.StatusCode, res.Header.Get("Location"), text(t, res))
	}
	page := text(t, send(b.routes(), "GET", "/", ""))
	for _, want := range []string{"<b>Zoë</b>", "first &lt;i&gt;line&lt;/i&gt; 🙂\nsecond", `id="server">s1<`} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	var got struct {
		Server  string
		Message message
	}
	decode(t, send(b.routes(), "GET", "/api/messages/page-0001", ""), &got)
	if got.Server != "s1" || got.Message.Author != "Zoë" || got.Message.Server != "s1" || time.Since(got.Message.Created) > time.Minute {
		t.Errorf("by the API: got %+v", got)
	}
}

func retriedPost(t *testing.T, b *board) {
	var seqs []int64
	for range 3 {
		res := postJSON(b, "a", "once", "retry-0001")
		var got struct {
			ID  string
			Seq int64
		}
		decode(t, res, &got)
		if res.StatusCode != http.StatusCreated || got.ID != "retry-0001" {
			t.Fatalf("got %d %+v, want 201", res.StatusCode, got)
		}
		seqs = append(seqs, got.Seq)
	}
	if seqs[0] != seqs[1] || seqs[1] != seqs[2] {
		t.Errorf("a retried post became several messages: %v", seqs)
	}
	if res := postJSON(b, "a", "another", "retry-0001"); res.StatusCode != http.StatusConflict {
		t.Errorf("another message with the same id: got %d, want 409", res.StatusCode)
	}
}

func found(t *testing.T, b *board, query string) []string {
	t.Helper()
	var got struct{ Messages []message }
	decode(t, send(b.routes(), "GET", "/api/messages?"+query, ""), &got)
	ids := []string{}
	for _, m := range got.Messages {
		ids = append(ids, m.ID)
	}
	return ids
}

func search(t *testing.T, b *board) {
	for i, words := range []string{"100% sure", "100 pounds", "under_score", "wow!"} {
		if res := postJSON(b, "searcher", words, fmt.Sprintf("search-%d", i)); res.StatusCode != http.StatusCreated {
			t.Fatalf("post %q: %d", words, res.StatusCode)
		}
	}
	for query, want := range map[string]string{
		"q=100%25": "[search-0]", "q=r_s": "[search-2]", "q=w!": "[search-3]", "q=POUNDS": "[search-1]",
		"q=searcher&limit=2": "[search-3 search-2]", "q=%27+OR+1%3D1": "[]",
	} {
		if got := fmt.Sprint(found(t, b, query)); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	var all struct{ Messages []message }
	decode(t, send(b.routes(), "GET", "/api/messages?q=searcher", ""), &all)
	if got := fmt.Sprint(found(t, b, fmt.Sprintf("after=%d&limit=1", all.Messages[3].Seq))); got != "[search-1]" {
		t.Errorf("after the first: got %s, want the second", got)
	}
}

// frozen holds the database still for a moment: requests wait and then succeed.
func frozen(t *testing.T, s *server, b *board) {
	s.signal(syscall.SIGSTOP)
	timer := time.AfterFunc(4*time.Second, func() { s.signal(syscall.SIGCONT) })
	defer timer.Stop()
	if res := postJSON(b, "a", "frozen", "frozen-001"); res.StatusCode != http.StatusCreated {
		t.Errorf("post: got %d, want 201", res.StatusCode)
	}
	if got := found(t, b, "q=frozen"); len(got) != 1 {
		t.Errorf("got %v, want it once", got)
	}
}

// killed has the database die and come back while requests wait for it.
func killed(t *testing.T, s *server, b *board) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGKILL)
	_ = s.cmd.Wait()
	var wg sync.WaitGroup
	wg.Go(func() {
		if res := send(b.routes(), "GET", "/", ""); res.StatusCode != http.StatusOK {
			t.Errorf("read: got %d, want 200", res.StatusCode)
		}
	})
	wg.Go(func() {
		if res := postJSON(b, "a", "after the crash", "killed-001"); res.StatusCode != http.StatusCreated {
			t.Errorf("post: got %d, want 201", res.StatusCode)
		}
	})
	s.start(t, me.Username)
	wg.Wait()
	if got := found(t, b, "q=after+the+crash"); len(got) != 1 {
		t.Errorf("got %v, want it once", got)
	}
}
