package proxy

// list is a list of connections, each of which is on one list at most. The
// server's mutex guards it.
type list struct {
	first, last *conn
	n           int
}

func (l *list) push(c *conn) {
	c.on, c.prev, c.next = l, l.last, nil
	if l.last == nil {
		l.first = c
	} else {
		l.last.next = c
	}
	l.last = c
	l.n++
}

func (l *list) remove(c *conn) {
	if c.prev == nil {
		l.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		l.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.on, c.prev, c.next = nil, nil, nil
	l.n--
}
