package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// scratch is a mariadbd of its own on this server, which nothing but a unix
// socket in its own folder leads to: no Galera, no log, no events, no network.
type scratch struct {
	dir string
	cmd *exec.Cmd
	end chan error
	log *said
}

// socket is short: a unix socket's path has 107 bytes at most.
func (s *scratch) socket() string { return filepath.Join(s.dir, "s.sock") }
func (s *scratch) data() string   { return filepath.Join(s.dir, "data") }

// startLimit is how long mariadbd may take to answer.
const startLimit = 2 * time.Minute

// newScratch makes an empty folder; remove ends all.
func newScratch(tmp string) (*scratch, error) {
	dir, err := os.MkdirTemp(tmp, "r")
	if err != nil {
		return nil, err
	}
	s := &scratch{dir: dir}
	return s, os.Mkdir(s.data(), 0o700)
}

// unpack fills the data folder from the stream of a full backup.
func (s *scratch) unpack(ctx context.Context, r io.Reader) error {
	cmd := program(ctx, "mbstream", "-x", "-C", s.data())
	in := &watched{r: r}
	cmd.Stdin = in
	err := run(cmd, "unpack")
	if in.err != nil { // says more than that mbstream's input broke off
		return in.err
	}
	return err
}

// watched keeps the error by which reading ended.
type watched struct {
	r   io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// start prepares the data folder and starts mariadbd on it.
func (s *scratch) start(ctx context.Context) error {
	prepare := program(ctx, "mariadb-backup", "--no-defaults", "--prepare", "--target-dir="+s.data(), "--tmpdir="+s.dir)
	if err := run(prepare, "prepare"); err != nil {
		return err
	}
	s.log = &said{}
	s.cmd = program(ctx, "mariadbd", "--no-defaults", "--datadir="+s.data(), "--socket="+s.socket(), "--pid-file="+s.dir+"/pid",
		"--tmpdir="+s.dir, "--skip-networking", "--skip-log-bin", "--skip-slave-start", "--wsrep-on=OFF", "--event-scheduler=OFF", "--performance-schema=OFF",
		"--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF", "--max-allowed-packet=1G",
		"--character-set-server=utf8mb4", "--collation-server=utf8mb4_unicode_ci", "--skip-name-resolve")
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start scratch mariadbd: %w", err)
	}
	s.end = make(chan error, 1)
	go func() { s.end <- s.cmd.Wait() }()
	return s.await(ctx)
}

// await returns when mariadbd answers.
func (s *scratch) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(s.socket()); err == nil {
			if _, err := query(ctx, s.socket(), "SELECT 1"); err == nil {
				return nil
			}
		}
		select {
		case err := <-s.end:
			s.end <- err
			return fmt.Errorf("start scratch mariadbd: it ended (%w): %s", err, s.log.last())
		case <-ctx.Done():
			return fmt.Errorf("start scratch mariadbd: %w: %s", ctx.Err(), s.log.last())
		case <-tick.C:
		}
	}
}

// remove kills mariadbd, whose data nobody needs any more, and removes the folder.
func (s *scratch) remove() {
	if s.end != nil {
		_ = s.cmd.Cancel()
		<-s.end //nolint:errcheck // it was killed
	}
	_ = os.RemoveAll(s.dir)
}

// player runs a binary log's events on a scratch mariadbd.
type player struct {
	in   *io.PipeWriter
	end  chan error
	head string // of the log's format: another needs another player
}

// play starts mariadb-binlog, which makes statements of events, and the client
// that runs them. format is the event that the log begins with.
func (s *scratch) play(ctx context.Context, format []byte) (*player, error) {
	r, w := io.Pipe()
	from := program(ctx, "mariadb-binlog", "--no-defaults", "-")
	from.Stdin = r
	to := client(ctx, s.socket())
	p := &player{in: w, end: make(chan error, 1), head: formatOf(format)}
	go func() {
		err := pipe(from, to, "read the binary log", "apply the binary log")
		_ = r.CloseWithError(errors.New("the binary log is not taken any more"))
		p.end <- err
	}()
	_, err := w.Write(append(append([]byte(nil), magic...), format...))
	if err != nil {
		return nil, errors.Join(p.close(), err)
	}
	return p, nil
}

// formatOf is what of a format event says how the others are to be read: all
// but its times and checksum.
func formatOf(format []byte) string {
	const created = eventHead + 2 + 50
	return string(format[eventHead:created]) + string(format[created+4:len(format)-checksum])
}

// close waits until all has been applied.
func (p *player) close() error {
	_ = p.in.Close()
	return <-p.end
}

// tables are a database's base tables, or with "" those of all but the system's.
func tables(ctx context.Context, socket, database string) ([][2]string, error) {
	where := "TABLE_SCHEMA NOT IN ('mysql','sys','information_schema','performance_schema')"
	if database != "" {
		where = "TABLE_SCHEMA=" + quote(database, '\'')
	}
	rows, err := query(ctx, socket, "SELECT TO_BASE64(TABLE_SCHEMA), TO_BASE64(TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_TYPE='BASE TABLE' AND "+where+" ORDER BY 1, 2")
	if err != nil {
		return nil, err
	}
	var out [][2]string
	for _, r := range rows {
		schema, err := unbase64(r[0])
		if err != nil {
			return nil, err
		}
		table, err := unbase64(r[1])
		if err != nil {
			return nil, err
		}
		out = append(out, [2]string{schema, table})
	}
	return out, nil
}

// snapshotGTID asks where in the binary log a consistent snapshot is.
const snapshotGTID = "SELECT BINLOG_GTID_POS((SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME='BINLOG_SNAPSHOT_FILE')," +
	"(SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME='BINLOG_SNAPSHOT_POSITION'))"

// counts are the rows of tables as one snapshot shows them, and what at asks of
// that snapshot: snapshotGTID where there is a binary log.
func counts(ctx context.Context, socket, at string, all [][2]string) (map[string]int64, string, error) {
	var sql strings.Builder
	sql.WriteString("START TRANSACTION WITH CONSISTENT SNAPSHOT;\n" + at + ";\n")
	for _, t := range all {
		fmt.Fprintf(&sql, "SELECT COUNT(*) FROM %s.%s;\n", quote(t[0], '`'), quote(t[1], '`'))
	}
	sql.WriteString("COMMIT;\n")
	rows, err := query(ctx, socket, sql.String())
	if err != nil {
		return nil, "", err
	}
	if len(rows) != len(all)+1 {
		return nil, "", fmt.Errorf("count rows: %d answers to %d questions", len(rows), len(all)+1)
	}
	out := map[string]int64{}
	for i, t := range all {
		n, err := strconv.ParseInt(rows[i+1][0], 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("count rows of %s.%s: %w", t[0], t[1], err)
		}
		out[t[0]+"."+t[1]] = n
	}
	return out, rows[0][0], nil
}

// rowsOf is counts where there is nothing else to ask.
func rowsOf(ctx context.Context, socket string, all [][2]string) (map[string]int64, error) {
	n, _, err := counts(ctx, socket, "SELECT 0", all)
	return n, err
}
