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

// appendJSON adds x as an object on a line of its own. Durations are in
// seconds: duration is all of it, queue the wait for a target, connect the
// opening of a connection, head from the first byte sent to the target until
// its answer's head came. The last three are left out where nobody was asked.
func appendJSON(b []byte, x *proxy.Exchange, now time.Time) []byte {
	r := x.Request
	path, query := split(r.Path)
	b = append(b, `{"time":"`...)
	b = x.Begin.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, '"')
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
	b = seconds(b, "duration", now.Sub(x.Begin))
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

// appendCombined adds x in Apache's combined form (mod_log_config).
func appendCombined(b []byte, x *proxy.Exchange, now time.Time) []byte {
	r := x.Request
	b = x.Client.AppendTo(b)
	b = append(b, " - - ["...)
	b = x.Begin.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
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
	return strconv.AppendFloat(b, float64(d.Microseconds())/1e6, 'f', -1, 64)
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

// appendQuoted adds s as a JSON string (RFC 8259, 7); what is not UTF-8
// becomes the replacement character.
func appendQuoted[T []byte | string](b []byte, s T) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, `\u00`...)
			b = append(b, hexadecimal[c>>4], hexadecimal[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

// appendEscaped adds s as Apache does: quotes and backslashes with a
// backslash, all that is not printable ASCII as \xHH.
func appendEscaped(b, s []byte, most int) []byte {
	for _, c := range s[:min(len(s), most)] {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = append(b, '\\', 'x', hexadecimal[c>>4], hexadecimal[c&15])
		default:
			b = append(b, c)
		}
	}
	return b
}
