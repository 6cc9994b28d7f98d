package digest

import "bytes"

// kind is what a token is, as far as folding asks.
type kind byte

const (
	kindEnd   kind = iota
	kindWord       // a keyword or a bare name
	kindName       // a name in backquotes, or one after a dot
	kindValue      // a literal or a placeholder
	kindSign       // + or -
	kindMark       // any other sign
	kindOpen       // (
	kindClose      // )
	kindComma
	kindDot
	kindSemicolon
)

// token is a piece of a statement.
type token struct {
	kind  kind
	text  []byte
	tight bool // nothing stands between it and the one before
	many  bool // a value that stands for many: a list that was folded before
}

// lexer cuts a statement into tokens as MariaDB does, without what is no part
// of it: space and comments. What a comment has MariaDB execute is code.
type lexer struct {
	text     []byte
	at       int
	plain    bool // a backslash in a string is itself (NO_BACKSLASH_ESCAPES)
	executed bool // within /*! */
	before   kind // of the token before
	tight    bool // nothing stands between that and what comes next
}

// next returns the next token; kindEnd at the end.
func (l *lexer) next() token {
	start := l.at
	l.blank()
	l.tight = l.at == start
	start = l.at
	t := token{kind: l.take(), tight: l.tight}
	t.text = l.text[start:l.at]
	t.many = t.kind == kindValue && len(t.text) == 2 && t.text[1] == '+'
	l.before = t.kind
	return t
}

// blank passes space and comments.
func (l *lexer) blank() {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		switch c := rest[0]; {
		case c <= ' ':
			l.at++
		case c == '#', c == '-' && dashes(rest):
			l.pass(bytes.IndexByte(rest, '\n'), 1)
		case c == '/' && len(rest) > 1 && rest[1] == '*':
			l.comment(rest)
		case c == '*' && l.executed && len(rest) > 1 && rest[1] == '/':
			l.at += 2
			l.executed = false
		default:
			return
		}
	}
}

// dashes reports whether rest begins a comment: two dashes, and space or nothing after them.
func dashes(rest []byte) bool {
	return len(rest) > 1 && rest[1] == '-' && (len(rest) == 2 || rest[2] <= ' ')
}

// pass goes behind the n bytes that end i bytes from here; if i is negative, to the end.
func (l *lexer) pass(i, n int) {
	if i < 0 {
		l.at = len(l.text)
		return
	}
	l.at += i + n
}

// comment passes one in a block, or only its beginning if it is executed.
func (l *lexer) comment(rest []byte) {
	head := 0
	switch {
	case bytes.HasPrefix(rest, []byte("/*!")):
		head = 3
	case bytes.HasPrefix(rest, []byte("/*M!")):
		head = 4
	default:
		if i := bytes.Index(rest[2:], []byte("*/")); i >= 0 {
			l.at += i + 4
		} else {
			l.at = len(l.text)
		}
		return
	}
	l.executed = true
	for l.at += head; l.at < len(l.text) && digit(l.text[l.at]); {
		l.at++ // the version that executes it
	}
}

// take passes one token.
func (l *lexer) take() kind {
	if l.at >= len(l.text) {
		return kindEnd
	}
	c := l.text[l.at]
	switch {
	case l.before == kindDot && inWord[c] && (l.tight || !digit(c)):
		l.word()
		return kindName
	case digit(c), c == '.' && l.fraction():
		return l.number()
	case inWord[c], c == '@':
		return l.bare()
	case c == '\'', c == '"':
		l.quoted(c)
		return kindValue
	case c == '`':
		l.quoted(c)
		return kindName
	}
	return l.sign(c)
}

// fraction reports whether the dot here begins a number, rather than goes on with a name.
func (l *lexer) fraction() bool {
	if l.at+1 >= len(l.text) || !digit(l.text[l.at+1]) {
		return false
	}
	switch l.before {
	case kindWord, kindName, kindValue, kindClose:
		return !l.tight
	}
	return true
}

// word passes the characters of a name.
func (l *lexer) word() {
	for l.at < len(l.text) && inWord[l.text[l.at]] {
		l.at++
	}
}

// bare passes a keyword or a name; the mark of a string's character set belongs to the string.
func (l *lexer) bare() kind {
	start := l.at
	for l.at < len(l.text) && l.text[l.at] == '@' {
		l.at++
	}
	l.word()
	if l.at < len(l.text) && l.text[l.at] == '\'' && introduces(l.text[start:l.at]) {
		l.quoted('\'')
		return kindValue
	}
	return kindWord
}

// introduces reports whether word before a string is part of it: x'0F', b'1', n'text', _utf8mb4'text'.
func introduces(word []byte) bool {
	switch {
	case len(word) == 1:
		c := word[0] | 0x20
		return c == 'x' || c == 'b' || c == 'n'
	case len(word) > 1:
		return word[0] == '_'
	}
	return false
}

// number passes a number, or a name that begins like one.
func (l *lexer) number() kind {
	start := l.at
	l.digits()
	if w := l.text[start:l.at]; len(w) == 1 && w[0] == '0' && l.at < len(l.text) && (l.text[l.at]|0x20 == 'x' || l.text[l.at]|0x20 == 'b') {
		l.word()
		return kindValue
	}
	whole := l.at > start
	if l.at < len(l.text) && l.text[l.at] == '.' {
		whole = false
		l.at++
		l.digits()
	}
	if l.exponent() {
		whole = false
	}
	if whole && l.at < len(l.text) && inWord[l.text[l.at]] {
		l.word()
		return kindWord
	}
	return kindValue
}

func (l *lexer) digits() {
	for l.at < len(l.text) && digit(l.text[l.at]) {
		l.at++
	}
}

// exponent passes one, if it is here and no name goes on after it.
func (l *lexer) exponent() bool {
	i := l.at
	if i >= len(l.text) || l.text[i]|0x20 != 'e' {
		return false
	}
	if i++; i < len(l.text) && (l.text[i] == '+' || l.text[i] == '-') {
		i++
	}
	if i >= len(l.text) || !digit(l.text[i]) {
		return false
	}
	for i < len(l.text) && digit(l.text[i]) {
		i++
	}
	if i < len(l.text) && inWord[l.text[i]] {
		return false
	}
	l.at = i
	return true
}

// quoted passes what is between two marks; one doubled is none.
func (l *lexer) quoted(mark byte) {
	escapes := !l.plain && mark != '`'
	for l.at++; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; {
		case c == '\\' && escapes:
			l.at++
		case c != mark:
		case l.at+1 < len(l.text) && l.text[l.at+1] == mark:
			l.at++
		default:
			l.at++
			return
		}
	}
	l.at = len(l.text)
}

// sign passes one of the rest.
func (l *lexer) sign(c byte) kind {
	l.at++
	switch c {
	case '(':
		return kindOpen
	case ')':
		return kindClose
	case ',':
		return kindComma
	case '.':
		return kindDot
	case ';':
		return kindSemicolon
	case '+', '-':
		if c == '-' && l.at < len(l.text) && l.text[l.at] == '>' {
			l.long()
			return kindMark
		}
		return kindSign
	case '?':
		if bytes.HasPrefix(l.text[l.at:], []byte("+)")) {
			l.at++
		}
		return kindValue
	}
	l.long()
	return kindMark
}

// long passes the rest of a sign of several characters.
func (l *lexer) long() {
	if l.at == len(l.text) || bytes.IndexByte([]byte("=<>&|"), l.text[l.at]) < 0 {
		return
	}
	for n := 3; n > 1; n-- {
		if end := l.at - 1 + n; end <= len(l.text) && signs[string(l.text[l.at-1:end])] {
			l.at = end
			return
		}
	}
}

var signs = map[string]bool{
	"<=>": true, "->>": true, "<=": true, ">=": true, "<>": true, "!=": true, ":=": true, "||": true, "&&": true, "<<": true, ">>": true, "->": true,
}

// inWord has the characters of names.
var inWord = func() (table [256]bool) {
	for c := range table {
		table[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || digit(byte(c)) || c == '_' || c == '$' || c >= 0x80
	}
	return table
}()

func digit(c byte) bool { return '0' <= c && c <= '9' }
