// Package hostile is a corpus of requests that have made two servers on one
// connection see different requests, or would, with what must become of each.
//
// It says what any strict server does, not how package wire does it: a test
// there runs it through the codec, and others may run it over a socket. Nothing
// but tests imports it.
//
// A file in testdata holds cases, apart by empty lines:
//
//	case a-name-without-spaces
//	# why, in one or more lines
//	| GET / HTTP/1.1          a line that is sent with CRLF
//	> abc                     bytes that are sent as they are
//	forward GET /path example.com
//	body abc                  of the request forwarded before it; empty if left out
//	without X-Name            a field that must not be forwarded with it
//	refuse 400                the end: answered so and closed, nothing more is forwarded
//
// Instead of refuse there may be: open (the connection is ready for another
// request), close (it ends after the answers), wait (more is awaited; where it
// is a body, the last forward is of the unfinished request and may come later,
// or in part). Of a request whose body is refused, its beginning may have been
// forwarded, never its end. In what is sent, \r \n \t \0 \\ and \xHH are bytes, \s is a
// space, and \*N(text) is text N times.
//
// Sizes are meant for a limit of 8 kB on a target, 16 kB on a line, 64 kB on a
// head and 100 fields.
package hostile

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Case is one client's bytes and what must become of them.
type Case struct {
	Name, Why string
	Send      []byte
	// Forwarded are the requests that reach the target, in order.
	Forwarded []Forwarded
	// Status answers what follows them, and closes; 0: nothing is refused.
	Status int
	// Close: the connection ends after the last answer. It is set with Status.
	Close bool
	// Wait: the last request has not ended.
	Wait bool
}

// Forwarded is one request as the target must see it.
type Forwarded struct {
	Method, Path, Host, Body string
	Without                  []string // names of fields
}

//go:embed testdata/*.txt
var files embed.FS

// Cases are all cases, in the order of their files' names.
func Cases() []Case {
	names, err := fs.Glob(files, "testdata/*.txt")
	if err != nil {
		panic(err)
	}
	var all []Case
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err)
		}
		cases, err := parse(string(text))
		if err != nil {
			panic(fmt.Sprintf("read %s: %v", name, err))
		}
		all = append(all, cases...)
	}
	return all
}

func parse(text string) (all []Case, err error) {
	ended := true
	for i, line := range strings.Split(text, "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		switch {
		case verb == "":
			continue
		case verb == "case" && ended:
			all, ended = append(all, Case{Name: rest}), false
			continue
		case ended:
			return nil, fmt.Errorf("line %d: %q is outside of a case", i+1, line)
		}
		if ended, err = all[len(all)-1].take(verb, rest); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	if !ended {
		return nil, fmt.Errorf("case %s has no end", all[len(all)-1].Name)
	}
	return all, nil
}

// take adds one line to the case; end says that it was its last.
func (c *Case) take(verb, rest string) (end bool, err error) {
	switch verb {
	case "#":
		c.Why = strings.TrimSpace(c.Why + " " + rest)
		return false, nil
	case "|", ">":
		return false, c.send(rest, verb == "|")
	case "forward", "body", "without":
		return false, c.forward(verb, rest)
	case "open":
	case "close":
		c.Close = true
	case "wait":
		c.Wait = true
	case "refuse":
		c.Close = true
		c.Status, err = strconv.Atoi(rest)
	default:
		return false, fmt.Errorf("%q begins no line", verb)
	}
	return true, err
}

func (c *Case) send(text string, line bool) error {
	b, err := unescape(text)
	if line {
		b = append(b, "\r\n"...)
	}
	c.Send = append(c.Send, b...)
	return err
}

func (c *Case) forward(verb, rest string) error {
	if verb == "forward" {
		words := strings.Fields(rest + " ") // a request of HTTP/1.0 may be without a host
		if len(words) == 2 {
			words = append(words, "")
		}
		if len(words) != 3 {
			return fmt.Errorf("%q is not a method, a path and a host", rest)
		}
		c.Forwarded = append(c.Forwarded, Forwarded{Method: words[0], Path: words[1], Host: words[2]})
		return nil
	}
	if len(c.Forwarded) == 0 {
		return fmt.Errorf("%s comes before forward", verb)
	}
	f := &c.Forwarded[len(c.Forwarded)-1]
	if verb == "without" {
		f.Without = append(f.Without, strings.Fields(rest)...)
		return nil
	}
	b, err := unescape(rest)
	f.Body = string(b)
	return err
}

var escapes = map[byte]byte{'r': '\r', 'n': '\n', 't': '\t', '0': 0, '\\': '\\', 's': ' '}

func unescape(s string) (b []byte, err error) {
	for len(s) > 0 {
		if s[0] != '\\' {
			b, s = append(b, s[0]), s[1:]
			continue
		}
		if len(s) < 2 {
			return nil, fmt.Errorf("a backslash at the end")
		}
		if b, s, err = escape(b, s[1], s[2:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// escape appends what \kind and what follows it stand for, and returns the rest.
func escape(b []byte, kind byte, s string) ([]byte, string, error) {
	if c, ok := escapes[kind]; ok {
		return append(b, c), s, nil
	}
	switch {
	case kind == 'x' && len(s) >= 2:
		n, err := strconv.ParseUint(s[:2], 16, 8)
		return append(b, byte(n)), s[2:], err
	case kind == '*':
		return repeat(b, s)
	}
	return nil, "", fmt.Errorf(`\%c is no escape`, kind)
}

// repeat appends what N(text) at the beginning of s stands for, and returns the rest.
func repeat(b []byte, s string) ([]byte, string, error) {
	count, text, _ := strings.Cut(s, "(")
	n, err := strconv.Atoi(count)
	if err != nil {
		return nil, "", fmt.Errorf(`read how often \* repeats: %w`, err)
	}
	open := 1
	for i := range len(text) {
		switch text[i] {
		case '(':
			open++
		case ')':
			open--
		}
		if open == 0 {
			one, err := unescape(text[:i])
			return append(b, strings.Repeat(string(one), n)...), text[i+1:], err
		}
	}
	return nil, "", fmt.Errorf(`the parenthesis after \* is not closed`)
}
