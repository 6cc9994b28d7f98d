package site

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong in a site file.
type Problem struct {
	File string // as the operator named it; empty when the Site came from no file
	Line int    // from 1; 0 when it is not known
	Key  string // the place in the file, such as servers[2].address; empty for the file as a whole
	Text string // what is wrong and how to put it right
}

// String is file, line, key and text, as compilers write them.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	return b.String() + p.Text
}

// Problems is all that is wrong in a site file, in the order of its lines.
type Problems []Problem

// Error is one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// report collects problems and knows on which line each key stands.
type report struct {
	file     string
	lines    map[string]int
	broken   map[string]bool // keys that have a problem
	unread   map[string]bool // keys that could not be read, or that a misspelt key was meant to be
	problems Problems
}

func newReport(file string) *report {
	return &report{file: file, lines: map[string]int{"": 1}, broken: map[string]bool{}, unread: map[string]bool{}}
}

// add notes a problem at key, unless that key has one already, or it or one
// above it could not be read: what could not be read is not judged as well.
func (r *report) add(key, format string, args ...any) {
	if r.broken[key] || r.lost(key) {
		return
	}
	r.broken[key] = true
	r.at(r.line(key), key, format, args...)
}

// refuse notes that what stands at key could not be read.
func (r *report) refuse(key, format string, args ...any) {
	r.unread[key] = true
	r.at(r.line(key), key, format, args...)
}

// lost reports whether key, or one above it, could not be read.
func (r *report) lost(key string) bool {
	for key != "" && !r.unread[key] {
		key = parent(key)
	}
	return r.unread[key]
}

// at notes a problem on a given line, without judging whether it is one too many.
func (r *report) at(line int, key, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Key: key, Text: fmt.Sprintf(format, args...)})
}

// line is where key stands, or the nearest key above it that is in the file.
func (r *report) line(key string) int {
	for {
		if n, ok := r.lines[key]; ok || key == "" {
			return n
		}
		key = parent(key)
	}
}

// written reports whether key stands in the file.
func (r *report) written(key string) bool {
	_, ok := r.lines[key]
	return ok
}

// parent cuts the last element off a key: a.b[2] → a.b → a → "".
func parent(key string) string {
	return key[:max(strings.LastIndexAny(key, ".["), 0)]
}

// err returns the problems sorted by line, or nil.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return r.problems
}
