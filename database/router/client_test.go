package router

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMariaDBsOwnPrograms has the command-line client, the dump and the load
// generator of MariaDB go through the router.
func TestMariaDBsOwnPrograms(t *testing.T) {
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	local := filepath.Join(t.TempDir(), "rows")
	must(t, os.WriteFile(local, []byte("1\n"), 0o600))
	for _, via := range []string{"s1", "s2"} {
		_, port, err := net.SplitHostPort(s.app[via])
		must(t, err)
		run := func(in, name string, args ...string) (string, error) {
			path, err := exec.LookPath(name)
			if err != nil {
				t.Skipf("needs %s: %v", name, err)
			}
			cmd := exec.Command(path, append([]string{"--no-defaults", "--host=127.0.0.1", "--port=" + port, "--user=" + appUser, "--password=" + appPassword}, args...)...)
			cmd.Stdin = strings.NewReader(in)
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		out, err := run("USE foo_bar\nCREATE OR REPLACE TABLE d (id INT PRIMARY KEY, t TEXT);\nINSERT INTO d VALUES (1,'x'),(2,'y');\nSELECT COUNT(*), DATABASE() FROM d;\nstatus\n",
			"mariadb", "--batch", "--skip-column-names")
		if err != nil || !strings.Contains(out, "2\tfoo_bar") || !strings.Contains(out, "MariaDB") {
			t.Errorf("client by %s: %v: %s", via, err, out)
		}
		out, err = run("LOAD DATA LOCAL INFILE '"+local+"' INTO TABLE d (id)", "mariadb", "--local-infile=1", appDatabase)
		if err == nil || !strings.Contains(out, "ERROR 4166") && !strings.Contains(out, "ERROR 1148") {
			t.Errorf("local file by %s: %v: %s", via, err, out)
		}
		out, err = run("", "mariadb-dump", "--single-transaction", appDatabase, "d")
		if err != nil || !strings.Contains(out, "(2,'y')") || !strings.Contains(out, "Dump completed") {
			t.Errorf("dump by %s: %v: %s", via, err, out)
		}
		out, err = run("", "mariadb-slap", "--create-schema=foo_other", "--no-drop", "--concurrency=8", "--number-of-queries=800", "--query=SELECT 1; SELECT 2", "--delimiter=;")
		if err != nil {
			t.Errorf("load by %s: %v: %s", via, err, out)
		}
	}
}
