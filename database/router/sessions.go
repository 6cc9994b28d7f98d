package router

import "sync"

// sessions are all that are signed in.
type sessions struct {
	mu  sync.Mutex
	all map[*session]struct{}
}

func (ss *sessions) add(s *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.all == nil {
		ss.all = map[*session]struct{}{}
	}
	ss.all[s] = struct{}{}
}

func (ss *sessions) remove(s *session) {
	ss.mu.Lock()
	delete(ss.all, s)
	ss.mu.Unlock()
}

// each calls f with each, outside of the lock.
func (ss *sessions) each(f func(*session)) {
	ss.mu.Lock()
	list := make([]*session, 0, len(ss.all))
	for s := range ss.all {
		list = append(list, s)
	}
	ss.mu.Unlock()
	for _, s := range list {
		f(s)
	}
}

func (ss *sessions) count() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.all)
}

// find returns the session that was greeted with that number, or nil.
func (ss *sessions) find(number uint32) *session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for s := range ss.all {
		if s.id == number {
			return s
		}
	}
	return nil
}
