package router

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// outcome is what a client was told of its write.
type outcome int

const (
	acknowledged outcome = iota
	refused              // it was not done
	unknown
)

// TestSwitchesUnderLoad moves the writer to and fro while clients write, alone
// and in transactions. What was acknowledged is there once; what was refused
// is not there; nothing is there twice.
func TestSwitchesUnderLoad(t *testing.T) { underLoad(t, false) }

// TestPlannedSwitchesUnderLoad is the same with switches that are announced: all writes are acknowledged.
func TestPlannedSwitchesUnderLoad(t *testing.T) {
	counts := underLoad(t, true)
	if counts[refused]+counts[unknown] > 0 {
		t.Errorf("%d refused, %d unknown, want none", counts[refused], counts[unknown])
	}
}

func underLoad(t *testing.T, planned bool) [3]int {
	t.Helper()
	s := newSite(t)
	s.elect("s1", "s1", "s2")
	roots := []*sql.DB{shared(t, 0).root(t), shared(t, 1).root(t)}
	for _, root := range roots {
		for _, q := range []string{"DROP TABLE IF EXISTS foo_bar.w", "CREATE TABLE foo_bar.w (n INT AUTO_INCREMENT PRIMARY KEY, k VARCHAR(40))"} {
			_, err := root.Exec(q)
			must(t, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var mu sync.Mutex
	told := map[string]outcome{}
	for i := range 8 {
		clients.Go(func() {
			db := s.open([]string{"s1", "s2"}[i%2], func(c *mysql.Config) { c.InterpolateParams = i%4 < 2 })
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%d-%d", i, n)
				o := write(db, key, n%2 == 0)
				mu.Lock()
				told[key] = o
				mu.Unlock()
			}
		})
	}
	done := func(n int) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(told) >= n
		}
	}
	for n := range 24 {
		poll(t, "clients write", patience*3, done(40*(n+1)))
		order := [][]string{{"s1", "s2"}, {"s2", "s1"}}[n/2%2]
		if planned {
			s.role.Next = s.other()
			s.tell(order...)
			poll(t, "transactions end", patience, func() bool { return s.routers[s.role.Writer].transactions() == 0 })
			s.role.Next = ""
		}
		s.elect(s.other(), order...)
	}
	cancel()
	clients.Wait()
	return s.compare(roots, told)
}

// write writes a key, alone or in a transaction.
func write(db *sql.DB, key string, alone bool) outcome {
	const insert = "INSERT INTO w (k) VALUES (?)"
	if alone {
		_, err := db.Exec(insert, key)
		return judge(err)
	}
	tx, err := db.Begin()
	if err != nil {
		return refused
	}
	if _, err := tx.Exec(insert, key); err != nil {
		_ = tx.Rollback()
		return refused
	}
	return judge(tx.Commit())
}

// judge is what an error says of a write that was sent, and that ended its transaction.
func judge(err error) outcome {
	if err == nil {
		return acknowledged
	}
	e, ok := errors.AsType[*mysql.MySQLError](err)
	if ok && (e.Number == 1213 || e.Number == 1290) {
		return refused
	}
	return unknown
}

func (s *site) compare(roots []*sql.DB, told map[string]outcome) [3]int {
	s.t.Helper()
	there := map[string]int{}
	for _, root := range roots {
		rows, err := root.Query("SELECT k FROM foo_bar.w")
		must(s.t, err)
		for rows.Next() {
			var k string
			must(s.t, rows.Scan(&k))
			there[k]++
		}
		must(s.t, rows.Err())
	}
	var counts [3]int
	for key, o := range told {
		counts[o]++
		switch n := there[key]; {
		case n > 1:
			s.t.Errorf("%s is there %d times", key, n)
		case n == 0 && o == acknowledged:
			s.t.Errorf("%s was acknowledged and is not there", key)
		case n == 1 && o == refused:
			s.t.Errorf("%s was refused and is there", key)
		}
	}
	s.t.Logf("MEASURE switches under load: %d acknowledged, %d refused, %d unknown", counts[acknowledged], counts[refused], counts[unknown])
	return counts
}
