package main

import (
	"crypto/rand"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits on a message, in characters; the table's columns have the same.
const (
	maxAuthor = 60
	maxText   = 2000
	maxQuery  = 100
)

// message is one entry of the board.
type message struct {
	ID      string    `json:"id"`  // its key, given by whoever sent it or made here
	Seq     int64     `json:"seq"` // place in the board's order; grows, with gaps
	Author  string    `json:"author"`
	Text    string    `json:"text"`
	Server  string    `json:"server"` // that took it
	Created time.Time `json:"created"`
}

var idForm = regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`)

// newID returns a key that nobody else has.
func newID() string { return rand.Text() }

// clean trims m, gives it a key if it has none, and says what is wrong with it.
func (m *message) clean() error {
	m.Author, m.Text = strings.TrimSpace(m.Author), strings.TrimSpace(strings.ReplaceAll(m.Text, "\r\n", "\n"))
	if m.ID == "" {
		m.ID = newID()
	}
	if !idForm.MatchString(m.ID) {
		return invalid("id: 8 to 64 letters, digits, - and _, please")
	}
	if err := field("author", m.Author, maxAuthor); err != nil {
		return err
	}
	if strings.ContainsRune(m.Author, '\n') {
		return invalid("author: one line, please")
	}
	return field("text", m.Text, maxText)
}

// invalid is an error of whoever sent the request, in words for them.
type invalid string

func (e invalid) Error() string { return string(e) }

func field(name, value string, most int) error {
	switch n := utf8.RuneCountInString(value); {
	case !utf8.ValidString(value) || strings.ContainsFunc(value, control):
		return invalid(name + ": text without control characters, please")
	case n == 0:
		return invalid(name + ": it is empty")
	case n > most:
		return invalid(fmt.Sprintf("%s: at most %d characters, please; these are %d", name, most, n))
	}
	return nil
}

// control reports whether c can be seen by nobody and is no line's end or tab.
func control(c rune) bool { return (c < ' ' && c != '\n' && c != '\t') || c == 0x7f }
