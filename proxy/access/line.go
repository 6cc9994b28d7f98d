package access

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"trivet/proxy"
	"trivet/proxy/wire"
)

// The longest values that a client can put into a line.
const (
	maxPath   = 2048
	maxAgent  = 512
	maxHost   = 255
	maxMethod = 32
)

// line writes lines.
type line struct{ utc, local second }

// second is one second as text, for many lines begin in the same one.
type second struct {
	unix int64
	text []byte
}

// in is t in that layout, without what is below a second.
func (s *second) in(t time.Time, layout string) []byte {
	if unix := t.Unix(); s.text == nil || s.unix != unix {
		s.unix, s.text = unix, t.AppendFormat(s.text[:0], layout)
	}
	return s.text
}

// json adds x as an object on a line of its own. Durations are in
// seconds: duration is all of it, queue the wait for a target, connect the
// opening of a connection, head from the first byte sent to the target until
// its answer's head came. The last three are left out where nobody was asked.
func (l *line) json(b []byte, x *proxy.Exchange) []byte {
	r := x.Request
	path, query := split(r.Path)
	b = append(b, `{"time":"`...)
	b = append(b, l.utc.in(x.Begin.UTC(), "2006-01-02T15:04:05")...)
	b = appendFraction(append(b, '.'), x.Begin.Nanosecond()/1e6, 3)
	b = append(b, `Z"`...)
	b = text(b, "id", x.ID, maxAgent)
	b = text(b, "trace", x.Trace, maxMethod)
	b = text(b, "span", x.Span, maxMethod)
	b = append(b, `,"client":"`...)
	b = x.Client.AppendTo(b)
	b = append(b, '"')
	b = text(b, "method", r.Method, maxMethod)
	b = text(b, "host", r.Host, maxHost)
	b = text(b, "path", path, maxPath)
	if len(query) > 0 {
		b = text(b, "query", query, maxPath)
	}
	b = append(b, `,"protocol":"`...)
	b = appendProtocol(b, r)
	b = append(b, `","status":`...)
	b = strconv.AppendInt(b, int64(x.Status), 10)
	b = number(b, "bytes", x.Sent)
	b = number(b, "received", x.Received)
	b = seconds(b, "duration", x.Times.Total)
	if x.Target != "" {
		b = append(b, `,"server":`...)
		b = appendQuoted(b, x.Target)
		b = seconds(b, "queue", x.Times.Queue)
		b = seconds(b, "connect", x.Times.Connect)
		b = seconds(b, "head", x.Times.Send+x.Times.Head)
	}
	b = number(b, "retries", int64(x.Retries))
	if x.Broken {
		b = append(b, `,"broken":true`...)
	}
	b = text(b, "agent", wire.Find(r.Fields, wire.UserAgent), maxAgent)
	return append(b, "}\n"...)
}

// combined adds x in Apache's combined form (mod_log_config).
func (l *line) combined(b []byte, x *proxy.Exchange) []byte {
	r := x.Request
	b = x.Client.AppendTo(b)
	b = append(b, " - - ["...)
	b = append(b, l.local.in(x.Begin, "02/Jan/2006:15:04:05 -0700")...)
	b = append(b, `] "`...)
	b = appendEscaped(b, r.Method, maxMethod)
	b = append(b, ' ')
	b = appendEscaped(b, r.Path, maxPath)
	b = append(b, ' ')
	b = appendProtocol(b, r)
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(x.Status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, x.Sent, 10)
	b = append(b, ` "`...)
	b = appendEscaped(b, orDash(wire.Find(r.Fields, wire.Referer)), maxAgent)
	b = append(b, `" "`...)
	b = appendEscaped(b, orDash(wire.Find(r.Fields, wire.UserAgent)), maxAgent)
	return append(b, "\"\n"...)
}

func orDash(v []byte) []byte {
	if len(v) == 0 {
		return []byte("-")
	}
	return v
}

func split(target []byte) (path, query []byte) {
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		return target[:i], target[i+1:]
	}
	return target, nil
}

func appendProtocol(b []byte, r *wire.Request) []byte {
	b = append(b, "HTTP/"...)
	b = append(b, '0'+r.Major, '.', '0'+r.Minor)
	return b
}

func number(b []byte, name string, v int64) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendInt(b, v, 10)
}

func seconds(b []byte, name string, d time.Duration) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendSeconds(b, max(d, 0))
}

// appendSeconds adds d to the microsecond, without zeros at its end.
func appendSeconds(b []byte, d time.Duration) []byte {
	b = strconv.AppendInt(b, int64(d/time.Second), 10)
	rest := int(d % time.Second / time.Microsecond)
	if rest == 0 {
		return b
	}
	digits := 6
	for ; rest%10 == 0; rest /= 10 {
		digits--
	}
	return appendFraction(append(b, '.'), rest, digits)
}

// appendFraction adds n with so many digits.
func appendFraction(b []byte, n, digits int) []byte {
	var room [6]byte
	for i := digits - 1; i >= 0; i-- {
		room[i] = '0' + byte(n%10)
		n /= 10
	}
	return append(b, room[:digits]...)
}

func text(b []byte, name string, v []byte, most int) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return appendQuoted(b, v[:min(len(v), most)])
}

const hexadecimal = "0123456789abcdef"

// How bytes stand in a line.
const (
	asIs     = iota // in both forms
	escaped         // \" or \\
	control         // as its number
	notASCII        // perhaps as a part of a character; by its number in the combined form
)

var kinds = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c == '"' || c == '\\':
			t[c] = escaped
		case c < ' ' || c == 0x7f:
			t[c] = control
		case c >= utf8.RuneSelf:
			t[c] = notASCII
		}
	}
	return t
}()

// appendQuoted adds s as a JSON string (RFC 8259, 7); what is not UTF-8
// becomes the replacement character.
func appendQuoted[T []byte | string](b []byte, s T) []byte {
	b = append(b, '"')
	done := 0
	for i := 0; i < len(s); {
		c := s[i]
		if kinds[c] == asIs {
			i++
			continue
		}
		b = append(b, s[done:i]...)
		switch kinds[c] {
		case escaped:
			b = append(b, '\\', c)
			i++
		case control:
			b = append(b, `\u00`...)
			b = append(b, hexadecimal[c>>4], hexadecimal[c&15])
			i++
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			b = utf8.AppendRune(b, r)
			i += n
		}
		done = i
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// appendEscaped adds s as Apache does: quotes and backslashes with a
// backslash, all that is not printable ASCII as \xHH.
func appendEscaped(b, s []byte, most int) []byte {
	s = s[:min(len(s), most)]
	done := 0
	for i, c := range s {
		switch kinds[c] {
		case asIs:
			continue
		case escaped:
			b = append(append(b, s[done:i]...), '\\', c)
		default:
			b = append(append(b, s[done:i]...), '\\', 'x', hexadecimal[c>>4], hexadecimal[c&15])
		}
		done = i + 1
	}
	return append(b, s[done:]...)
}
