package router

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"trivet/internal/part"
)

// course is what the router goes by: what its node says, and newer word of another router.
type course struct {
	mu    sync.Mutex
	state part.State
	heard news
	plan  part.DatabaseRole // the switch that is announced
	until time.Time         // as long as sessions are held for it
}

// holdLimit is how long a switch may be announced before it is made. After it
// all go on as before, however long the announcement stands: less than
// patience, so that who was held from the beginning is not refused.
const holdLimit = patience - 500*time.Millisecond

// Apply takes the identity, the app's account, the writer and the synced
// databases from s.
func (r *Router) Apply(_ context.Context, s part.State) error {
	if err := r.source.Set(s.Identity, s.Bundle); err != nil {
		return fmt.Errorf("apply router: %w", err)
	}
	if w := s.Database.Writer; w != "" && w != s.Server {
		if m, ok := s.Member(w); !ok || m.Address == "" {
			return fmt.Errorf("apply router: the site names no address of the writer %q", w)
		}
	}
	cr := credentials{passwords: passwordsOf(s.Secrets[part.SecretAppDatabase], s.Secrets[part.SecretAppDatabaseOld], s.Secrets[part.SecretAppDatabaseNext])}
	limit := defaultLimit
	if s.Site != nil {
		cr.user = s.Site.Database.User
		if n := s.Site.Database.Connections; n > 0 {
			limit = n
		}
		r.digests.SlowFrom(time.Duration(s.Site.Database.SlowQuery))
	}
	r.credentials.Store(&cr)
	r.gate.resize(limit)
	r.writes.resize(limit)
	r.reads.resize(limit)
	r.course.mu.Lock()
	defer r.course.mu.Unlock()
	r.course.state = s
	r.steer()
	return nil
}

// hear takes the word of another router of this site, if it is newer.
func (r *Router) hear(n news) {
	r.course.mu.Lock()
	defer r.course.mu.Unlock()
	if n.epoch > r.course.state.Database.Epoch && n.epoch > r.course.heard.epoch {
		r.log.Info("heard of a newer writer", "writer", n.writer, "epoch", n.epoch)
		r.course.heard = n
		r.steer()
	}
}

// steer sets the targets by the course. It is called under the course's lock.
func (r *Router) steer() {
	s := r.course.state
	role := s.Database
	if h := r.course.heard; h.epoch > role.Epoch {
		role = part.DatabaseRole{Writer: h.writer, Epoch: h.epoch}
	}
	write := target{epoch: role.Epoch, server: role.Writer, held: r.hold(role), places: placesOf(s, role.Writer)}
	if len(write.places) == 0 {
		write.server = ""
	}
	if old, changed := r.writes.set(write); changed {
		r.log.Info("writer", "writer", write.server, "epoch", write.epoch, "was", old.server)
	}
	r.reads.set(readTarget(s, role.Writer))
	own := target{}
	if s.Self().Database.State == part.DatabaseSynced {
		own.server = s.Server
	}
	r.own.set(own)
	for _, p := range []*pool{r.writes, r.reads} {
		p.prune(time.Now())
	}
	r.sessions.each((*session).revise)
}

// hold reports whether transactions are held for a switch that is announced.
// It is called under the course's lock.
func (r *Router) hold(role part.DatabaseRole) bool {
	c := &r.course
	if role.Next == "" || role.Next == role.Writer {
		c.plan = part.DatabaseRole{}
		return false
	}
	if role.Epoch != c.plan.Epoch || role.Writer != c.plan.Writer || role.Next != c.plan.Next {
		c.plan, c.until = role, time.Now().Add(holdLimit)
		time.AfterFunc(holdLimit, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			r.steer()
		})
	}
	return time.Now().Before(c.until)
}

// placesOf are the places of these servers, without those that the state does not know.
func placesOf(s part.State, servers ...string) []place {
	var out []place
	for _, name := range servers {
		if m, ok := s.Member(name); ok || name == s.Server {
			out = append(out, place{server: name, address: m.Address, local: name == s.Server})
		}
	}
	return out
}

// readTarget is where reads go: to this server's own database, to the
// writer's, to another that is synced, whichever there is first.
func readTarget(s part.State, writer string) target {
	synced := func(name string) bool {
		m, ok := s.Member(name)
		return ok && m.Database.State == part.DatabaseSynced
	}
	var order []string
	if synced(s.Server) {
		order = append(order, s.Server)
	}
	if writer != "" {
		order = append(order, writer)
	}
	for _, m := range s.Members {
		if synced(m.Name) {
			order = append(order, m.Name)
		}
	}
	var unique []string
	for _, name := range order {
		if !slices.Contains(unique, name) {
			unique = append(unique, name)
		}
	}
	t := target{places: placesOf(s, unique...)}
	if len(t.places) > 0 {
		t.server = t.places[0].server
	}
	return t
}
