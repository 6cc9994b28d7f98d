package e2e

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"trivet/e2e/history"
	"trivet/internal/netns"
)

// Where each server's router listens for its app, and where for reads.
const (
	routerAddress = "127.0.0.1:3306"
	readAddress   = "127.0.0.1:3307"
)

// transactions is the load of transactions on a lab's databases.
type transactions struct {
	*history.Load
	lab *Lab
}

// transactions prepares a load through the routers of all servers, as their
// apps would reach them.
func (l *Lab) transactions(ctx context.Context) (transactions, error) {
	at, err := l.databaseURL()
	if err != nil {
		return transactions{}, err
	}
	password, _ := at.User.Password()
	load := &history.Load{
		Servers: Servers, Dial: l.dial(routerAddress),
		User: at.User.Username(), Password: password, Database: strings.TrimPrefix(at.Path, "/"),
	}
	if conn, err := l.dial(readAddress)(ctx, Servers[0]); err == nil {
		_ = conn.Close()
		load.DialRead = l.dial(readAddress)
	}
	return transactions{load, l}, load.Prepare(ctx)
}

// Gap is the longest time that the clients of one of the servers waited.
func (w transactions) Gap(from, to time.Duration, of []string) time.Duration {
	worst := time.Duration(0)
	for _, s := range of {
		worst = max(worst, history.Gap(w.History(), from, to, s))
	}
	return worst
}

// Tell counts what the clients were told.
func (w transactions) Tell(f *Figures) {
	n := history.Count(w.History())
	f.Acked, f.Failed, f.Unknown = n[history.OK], n[history.Failed], n[history.Unknown]
	seen := map[string]int{}
	for _, o := range w.History() {
		if o.Error != "" {
			seen[string(o.Kind)+" "+string(o.Outcome)+": "+o.Error]++
		}
	}
	f.Errors = Frequent(seen)
}

// Frequent lists what was seen and how often, the most frequent first.
func Frequent(seen map[string]int) []string {
	words := slices.SortedFunc(maps.Keys(seen), func(a, b string) int {
		return cmp.Or(cmp.Compare(seen[b], seen[a]), cmp.Compare(a, b))
	})
	for i, w := range words {
		words[i] = fmt.Sprintf("%d × %s", seen[w], w)
	}
	return words
}

// dial connects inside a server's network.
func (l *Lab) dial(address string) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, server string) (conn net.Conn, err error) {
		err = netns.Do(l.Namespace(server), func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp4", address)
			return err
		})
		return conn, err
	}
}

// databaseURL is what the app is told.
func (l *Lab) databaseURL() (*url.URL, error) {
	for _, server := range Servers {
		pids, err := l.Processes(server, "")
		if err != nil {
			return nil, err
		}
		for _, pid := range pids {
			environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil {
				continue // it has ended
			}
			for v := range strings.SplitSeq(string(environment), "\x00") {
				if text, ok := strings.CutPrefix(v, "DATABASE_URL="); ok {
					return url.Parse(text)
				}
			}
		}
	}
	return nil, errors.New("find the database's address: no process of the lab was told it")
}

// Processes finds the processes of a server by a word of their command line, as
// pids of this machine. Of those whose line only names another program to run
// (lab-init) it finds none, unless asked for.
func (l *Lab) Processes(server, word string) ([]int, error) {
	out, err := exec.Command("ip", "netns", "pids", l.Namespace(server)).Output()
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", server, err)
	}
	var pids []int
	for f := range strings.FieldsSeq(string(out)) {
		cmd, err := os.ReadFile("/proc/" + f + "/cmdline")
		line := strings.ReplaceAll(string(cmd), "\x00", " ")
		if err == nil && strings.Contains(line, word) && (word == "lab-init" || !strings.Contains(line, "lab-init")) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				return nil, fmt.Errorf("list processes of %s: %w", server, err)
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Node opens a database of a server's own mariadbd, as its root.
func (l *Lab) Node(server, database string) (*sql.DB, error) {
	return history.Open(filepath.Join(l.Dir(server, "run"), "database", "mariadbd.sock"), database)
}

// Synced says why not all servers' databases are synced with each other; nil if they are.
func (l *Lab) Synced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	all := make([]error, len(Servers))
	var wg sync.WaitGroup
	for i, server := range Servers {
		wg.Go(func() {
			if err := l.synced(ctx, server); err != nil {
				all[i] = fmt.Errorf("%s: %w", server, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(all...)
}

func (l *Lab) synced(ctx context.Context, server string) error {
	db, err := l.Node(server, "")
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(ctx, "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_cluster_size', 'wsrep_local_state', 'wsrep_cluster_status')")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	got := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		got[name] = value
	}
	want := map[string]string{"wsrep_ready": "ON", "wsrep_cluster_size": strconv.Itoa(len(Servers)), "wsrep_local_state": "4", "wsrep_cluster_status": "Primary"}
	if !reflect.DeepEqual(got, want) {
		return fmt.Errorf("it is %v", got)
	}
	return rows.Err()
}

// Audit checks the history against what each server holds.
func (w transactions) Audit(ctx context.Context) ([]string, error) {
	var wrong []string
	var first history.Content
	for i, server := range Servers {
		has, err := w.content(ctx, server)
		if err != nil {
			return nil, fmt.Errorf("audit %s: %w", server, err)
		}
		if i == 0 {
			first, wrong = has, history.Check(w.History(), has, history.Tables)
		} else if !reflect.DeepEqual(first, has) {
			wrong = append(wrong, fmt.Sprintf("%s holds other data than %s", server, Servers[0]))
		}
	}
	return wrong, nil
}

func (w transactions) content(ctx context.Context, server string) (history.Content, error) {
	db, err := w.lab.Node(server, w.Database)
	if err != nil {
		return history.Content{}, err
	}
	defer func() { _ = db.Close() }()
	return history.ReadContent(ctx, db)
}

// others are the servers but those.
func others(not ...string) []string {
	return slices.DeleteFunc(slices.Clone(Servers), func(s string) bool { return slices.Contains(not, s) })
}
