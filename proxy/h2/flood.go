package h2

// level names what a client has only so much of: each is a bucket that fills
// again with time and with work that was asked for. They hold what a busy client
// of any kind does many times over; who empties one is sent away.
type level uint8

const (
	resets  level = iota // streams it reset unanswered (CVE-2023-44487)
	faults               // streams that we had to reset by its fault (CVE-2025-8671)
	refused              // streams beyond the limit
	setting              // SETTINGS (CVE-2019-9515)
	pings                // PING (CVE-2019-9512)
	empty                // DATA frames that neither hold nor end anything (CVE-2019-9518)
	updates              // WINDOW_UPDATE (CVE-2019-9517 and others)
	stray                // frames to closed streams
	other                // PRIORITY and frames without a meaning here (CVE-2019-9513)
	nLevels
)

type levels [nLevels]int32

// full is what a connection begins with, and what no bucket exceeds.
var full = levels{resets: 400, faults: 100, refused: 1000, setting: 50, pings: 1000, empty: 200, updates: 4000, stray: 4000, other: 2000}

// refill is for each step of the sweep, of which there are four in a second.
var refill = levels{resets: 10, faults: 1, refused: 50, setting: 1, pings: 50, empty: 5, updates: 250, stray: 250, other: 25}

// reasons are given with GOAWAY.
var reasons = [nLevels]string{
	"too many streams reset", "too many faulty streams", "too many streams at once", "too many SETTINGS", "too many PINGs",
	"too many empty frames", "too many WINDOW_UPDATEs", "too many frames to closed streams", "too many frames of no use",
}

// spend takes one from a bucket. mu is held.
func (c *Conn) spend(k level) error {
	if c.levels[k]--; c.levels[k] < 0 {
		return &fault{codeCalm, reasons[k]}
	}
	return nil
}

// earn puts n into a bucket. mu is held.
func (c *Conn) earn(k level, n int32) { c.levels[k] = min(c.levels[k]+n, full[k]) }

// earned is for each stream that was answered to its end: resetting one for each
// one awaited is what a person does who clicks before a page is whole. mu is held.
func (c *Conn) earned() {
	c.earn(resets, 1)
	c.earn(other, 4)
	c.earn(refused, 1)
}

// rise refills all. mu is held.
func (c *Conn) rise() {
	for k := range c.levels {
		c.earn(level(k), refill[k])
	}
}

// maxControl is how many answers to a client's frames may wait to be written: to
// one that asks and does not read.
const maxControl = 1000

// answered counts a frame that was appended because of one of the client's, and
// has it sent. mu is held.
func (c *Conn) answered() error {
	if c.control++; c.control > maxControl {
		return &fault{codeCalm, "answers are not read"}
	}
	c.flushSoon()
	return nil
}

// closedRing remembers how the streams ended that were closed last.
type closedRing struct {
	ids  [64]uint32
	ends [64]ending
	next uint8
}

// ending says how a stream was closed.
type ending uint8

const (
	unknown ending = iota
	whole          // both sides ended
	byPeer         // the client reset it
	byUs           // we did: frames of it may be on their way
)

func (r *closedRing) add(id uint32, e ending) {
	r.ids[r.next], r.ends[r.next] = id, e
	r.next = (r.next + 1) % uint8(len(r.ids))
}

func (r *closedRing) how(id uint32) ending {
	for i, x := range r.ids {
		if x == id {
			return r.ends[i]
		}
	}
	return unknown
}
