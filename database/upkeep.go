package database

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"trivet/internal/part"
)

// keep is the upkeep of a running node: a renewed identity and the memory; of
// a synced one also the app's account. One that was cut off until
// its identity expired needs the new one in order to get back into the group.
func (d *Database) keep(ctx context.Context, v view) {
	if !d.health.answers { // nor did it just end
		return
	}
	err := errors.Join(d.reload(ctx), d.resize(ctx), d.guard(ctx, v))
	if v.serves() {
		err = errors.Join(err, d.ensure(ctx, v), d.watchDDL(ctx, v))
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("upkeep of the database", "err", err)
	}
}

// resize gives the running mariadbd the memory that the site says.
func (d *Database) resize(ctx context.Context) error {
	d.mu.Lock()
	want := int64(pool(d.state.Site.Database, d.memory)) * mebibyte
	d.mu.Unlock()
	if want == d.sized {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var have int64
	if err := d.db.QueryRowContext(ctx, "SELECT @@innodb_buffer_pool_size").Scan(&have); err != nil {
		return fmt.Errorf("read the database's memory: %w", err)
	}
	if have != want {
		if err := d.exec(ctx, fmt.Sprintf("SET GLOBAL innodb_buffer_pool_size=%d", want)); err != nil {
			return err
		}
		d.log.Info("database's memory changed", "from", have, "to", want)
	}
	d.sized = want
	return nil
}

// reload lets mariadbd read a renewed identity.
func (d *Database) reload(ctx context.Context) error {
	d.mu.Lock()
	renewed := d.renewed
	d.mu.Unlock()
	if !renewed {
		return nil
	}
	if err := d.exec(ctx, "SET GLOBAL wsrep_provider_options='socket.ssl_reload=1'"); err != nil {
		return err
	}
	d.mu.Lock()
	d.renewed = false
	d.mu.Unlock()
	d.log.Info("database reads its renewed identity")
	return nil
}

// ensure makes the app's account, on the writer, when it is new or changed.
func (d *Database) ensure(ctx context.Context, v view) error {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	a := accountOf(s)
	if v.role.Writer != v.self || a == d.ensured {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := errors.Join(a.ensure(ctx, d.db, d.paths.Socket), ensureReader(ctx, d.db, a.reader)); err != nil {
		return err
	}
	d.ensured = a
	return nil
}

// evict tells the group that a node whose supervisor saw it end is gone: then
// writes go on after some 40 ms rather than the second that its silence would
// take, and a lone survivor keeps its majority. One does it: the lowest.
func (d *Database) evict(ctx context.Context, v view) {
	for _, m := range v.ended() {
		id := m.Database.Gcomm
		if d.evicted[m.Name] == id {
			continue
		}
		d.evicted[m.Name] = id
		d.log.Info("evicting ended node", "server", m.Name)
		if err := d.exec(ctx, "SET GLOBAL wsrep_provider_options="+quote("evs.evict="+id, '\'')); err != nil && ctx.Err() == nil {
			d.log.Warn("evict ended node", "server", m.Name, "err", err)
		}
	}
}

// ended are the nodes of the group that this one may say are gone. It does not
// make itself the last one before it knows that none of them holds more on its
// disk: this server may have stood still while the two others took further
// writes, and still believe in the group of before.
func (v view) ended() []part.Member {
	cs := ballot{v}.candidates()
	if len(cs) == 0 || cs[0] != v.self {
		return nil
	}
	var gone []part.Member
	others, doubt := 0, false
	for _, m := range v.members {
		if m.Name == v.self || !slices.Contains(v.health.names, m.Name) {
			continue
		}
		others++
		if said := m.Database; said.State == part.DatabaseDown && said.Gcomm != "" {
			gone = append(gone, m)
			doubt = doubt || said.UUID != v.health.uuid || said.Seqno < 0 || said.Seqno > v.health.seqno
		}
	}
	if doubt && len(gone) == others {
		return gone[:others-1]
	}
	return gone
}

// quote writes s as an identifier or a string of SQL.
func quote(s string, mark byte) string {
	m := string(mark)
	if mark == '\'' {
		s = strings.ReplaceAll(s, `\`, `\\`)
	}
	return m + strings.ReplaceAll(s, m, m+m) + m
}
