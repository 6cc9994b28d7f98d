package h2

import "encoding/binary"

// Settings (RFC 9113, 6.5.2; RFC 8441, 3; RFC 9218, 2.1).
const (
	settingTable uint16 = iota + 1
	settingPush
	settingStreams
	settingWindow
	settingFrame
	settingHead
	settingConnect      uint16 = 8
	settingNoPriorities uint16 = 9
)

// peer is what the client set.
type peer struct {
	window   int64 // of a new stream
	maxFrame int
}

func newPeer() peer { return peer{window: defaultWindow, maxFrame: maxFrame} }

// greet appends our SETTINGS and opens the connection's window. mu is held.
func (c *Conn) greet() {
	all := [...]struct {
		id    uint16
		value uint32
	}{
		{settingStreams, c.cfg.Streams},
		{settingWindow, firstWindow},
		{settingHead, uint32(c.cfg.Limits.Head)},
		{settingConnect, 1},
		{settingNoPriorities, 1},
	}
	o := c.frame(frameSettings, 0, 0, 6*len(all))
	for _, s := range all {
		o.b = binary.BigEndian.AppendUint16(o.b, s.id)
		o.b = binary.BigEndian.AppendUint32(o.b, s.value)
	}
	c.grant(0, c.recv.size-c.recv.avail)
	c.recv.avail = c.recv.size
}

func (c *Conn) settings(f frame, p []byte) error {
	if f.stream != 0 {
		return protocol("SETTINGS on a stream")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.has(flagEndStream) {
		if len(p) != 0 {
			return &fault{codeFrameSize, "acknowledgement with settings"}
		}
		return c.spend(setting)
	}
	if len(p)%6 != 0 {
		return &fault{codeFrameSize, "SETTINGS of a wrong size"}
	}
	if err := c.spend(setting); err != nil {
		return err
	}
	for ; len(p) > 0; p = p[6:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.greeted = true
	c.frame(frameSettings, flagEndStream, 0, 0)
	return c.answered()
}

// set takes one setting of the client's. mu is held.
func (c *Conn) set(id uint16, v uint32) error {
	switch id {
	case settingTable:
		c.encoder.limit(int(min(v, encoderTable)))
	case settingPush, settingConnect, settingNoPriorities:
		if v > 1 {
			return protocol("setting is neither 0 nor 1")
		}
	case settingWindow:
		return c.resize(int64(v))
	case settingFrame:
		if v < maxFrame || v > 1<<24-1 {
			return protocol("MAX_FRAME_SIZE out of its range")
		}
	}
	return nil
}

// resize sets the window that streams begin with, and changes that of all open
// ones by the difference (RFC 9113, 6.9.2). mu is held.
func (c *Conn) resize(v int64) error {
	if v > maxWindow {
		return &fault{codeFlow, "INITIAL_WINDOW_SIZE is too large"}
	}
	by := v - c.peer.window
	c.peer.window = v
	for _, s := range c.streams {
		if s.send+by > maxWindow {
			return &fault{codeFlow, "stream's window is too large"}
		}
		s.send += by
		s.writable.Broadcast()
	}
	c.reopened()
	return nil
}
