package h2

// Frame types (RFC 9113, 6; RFC 9218, 7).
const (
	frameData uint8 = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePush
	framePing
	frameGoAway
	frameWindow
	frameContinuation
	framePriorityUpdate uint8 = 0x10
)

// Frame flags.
const (
	flagEndStream  = 0x1 // and ACK
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Error codes (RFC 9113, 7).
const (
	codeNo uint32 = iota
	codeProtocol
	codeInternal
	codeFlow
	codeSettingsTime
	codeStreamClosed
	codeFrameSize
	codeRefused
	codeCancel
	codeCompression
	codeConnect
	codeCalm
)

const (
	frameHead   = 9
	maxFrame    = 16384 // the largest we take, which is what the protocol starts with
	maxStream   = 1<<31 - 1
	prefaceText = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// frame is the head of a frame.
type frame struct {
	kind, flags uint8
	stream      uint32
}

func (f frame) has(flag uint8) bool { return f.flags&flag != 0 }

// fault is what a connection is closed for.
type fault struct {
	code uint32
	why  string
}

func (f *fault) Error() string { return f.why }

func protocol(why string) error { return &fault{codeProtocol, why} }

// unpad is a frame's payload without its padding; padded says how much there was.
func unpad(f frame, p []byte) (data []byte, padded int, err error) {
	if !f.has(flagPadded) {
		return p, 0, nil
	}
	if len(p) == 0 {
		return nil, 0, &fault{codeFrameSize, "padded frame without its length"}
	}
	pad := int(p[0])
	if pad >= len(p) {
		return nil, 0, protocol("padding is longer than its frame")
	}
	return p[1 : len(p)-pad], 1 + pad, nil
}
