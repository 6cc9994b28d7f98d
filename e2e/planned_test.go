package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// flawless asserts that not one write was refused either: the work was planned.
func (l *Load) flawless(t *testing.T) {
	t.Helper()
	l.whole(t)
	if len(l.Lost) > 0 {
		t.Errorf("%d posts were not acknowledged, the first: %s", len(l.Lost), l.Lost[0])
	}
}

func writer(t *testing.T) string {
	t.Helper()
	s, err := ring.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Writer
}

// The writer moves, by command and off a drained server, without a failed write.
func TestWriterMoves(t *testing.T) {
	ensureUp(t)
	load(t, func(*Load) {
		for range 3 {
			before := writer(t)
			t.Log(strings.TrimSpace(must(t, "db", "switch")))
			if after := writer(t); after == before {
				t.Errorf("%s takes the writes as before", after)
			}
		}
		before := writer(t)
		must(t, "drain", before)
		if after := writer(t); after == before {
			t.Errorf("%s is drained and takes the writes", after)
		}
		if _, err := ring.Run(t.Context(), "db", "switch", writer(t)); err == nil || !strings.Contains(err.Error(), "takes the writes already") {
			t.Errorf("switch to the writer itself: %v", err)
		}
		must(t, "undrain", before)
	}).flawless(t)
}

// MariaDB is restarted on all servers without a failed write.
func TestDatabasesRestart(t *testing.T) {
	ensureUp(t)
	mariadbds := func() []int {
		var all []int
		for _, s := range Servers {
			all = append(all, processes(t, s, "mariadbd")...)
		}
		return all
	}
	before := mariadbds()
	load(t, func(*Load) { t.Log(must(t, "db", "restart")) }).flawless(t)
	for _, pid := range mariadbds() {
		if slices.Contains(before, pid) {
			t.Errorf("mariadbd %d was not restarted", pid)
		}
	}
}

// The app's password changes without a failed request, and the former one is refused.
func TestPasswordRotates(t *testing.T) {
	ensureUp(t)
	before := appPassword(t)
	load(t, func(*Load) { t.Log(must(t, "db", "rotate-password")) }).flawless(t)
	after := appPassword(t)
	if before == after {
		t.Fatal("the password is what it was")
	}
	signIn := func(password string) error {
		_, err := ring.Run(t.Context(), "db", "shell", "--", "--user=foobar", "--password="+password, "-e", "SELECT 1")
		return err
	}
	if err := signIn(after); err != nil {
		t.Errorf("sign in with the new password: %v", err)
	}
	if signIn(before) == nil {
		t.Error("the former password is still taken")
	}
}

// appPassword is the app's, as the servers have agreed on it.
func appPassword(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(ring.Dir("s1", "lib"), "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Secrets map[string]string `json:"secrets"`
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s.Secrets["database-app"]
}

// A person gets to the prompt, and one who only looks cannot write.
func TestDatabaseShell(t *testing.T) {
	ensureUp(t)
	text := "shell-" + time.Now().Format("150405.000")
	must(t, "db", "shell", "--", "-e", "CREATE TABLE IF NOT EXISTS shell (word CHAR(40) PRIMARY KEY); INSERT INTO shell VALUES ('"+text+"')")
	for _, server := range Servers {
		out := must(t, "db", "shell", "--read-only", "--server", server, "--", "-N", "-e", "SET SESSION wsrep_sync_wait=1; SELECT word FROM shell")
		if !strings.Contains(out, text) {
			t.Errorf("%s does not show what was written: %q", server, out)
		}
	}
	for _, words := range []string{"INSERT INTO shell VALUES ('x')", "SET SESSION TRANSACTION READ WRITE; DELETE FROM shell", "DROP TABLE shell"} {
		if out, err := ring.Run(t.Context(), "db", "shell", "--read-only", "--", "-e", words); err == nil {
			t.Errorf("read-only: %s: %q", words, out)
		}
	}
	log := must(t, "logs", "node", "-n", "200")
	for _, want := range []string{"database shell opened", "database shell closed", "read_only=true", text} {
		if !strings.Contains(log, want) {
			t.Errorf("node's log does not say %q", want)
		}
	}
	must(t, "db", "shell", "--", "-e", "DROP TABLE shell")
}
