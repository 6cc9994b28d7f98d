package digest

import "strings"

// Seen is how many bytes of a statement are looked at.
const Seen = 4 << 10

const (
	longestText = 1 << 10 // bytes of a folded one that are kept to be shown
	cutMark     = "…"
)

// class is what a word means to what comes after it.
type class byte

const (
	classOther class = iota
	classIn          // a list of values follows
	classRows        // VALUES: rows follow
	classIs          // NULL, TRUE and FALSE after it are no values
	classOpens       // a sign after it belongs to a number
)

// place is how far a folded statement has come. Going back to one undoes what
// was written since.
type place struct {
	n     int    // bytes written
	hash  uint64 // of all tokens
	over  bool   // there was more than can be shown
	last  kind   // the last token
	class class  // what it means, if that is a word
}

// list is the innermost parenthesis, while there are only values in it.
type list struct {
	place        // before it
	tight   bool // as its token
	pure    bool // that is so
	values  int
	wants   bool // a value comes next, or the end; else a comma
	listing bool // one value alone makes it a list
	further bool // it is another of the lists before it
}

// row says where it is in the rows of an INSERT.
type row byte

const (
	rowNone    row = iota
	rowAwaited     // after VALUES
	rowInside      // the first one
	rowEnded
	rowComma   // another may come
	rowSkipped // within another
)

// folder writes a statement's digest: literals are ?, lists of them and all
// rows but the first are folded, space is made one.
type folder struct {
	lexer
	place
	out [longestText]byte

	depth    int
	ended    bool // a semicolon has come and nothing after it
	list     list
	lists    place // after the list that was folded last
	folded   bool  // nothing came since
	further  bool  // nothing but a comma came since
	unary    bool  // a sign has come that belongs to a number
	signed   place // before it
	row      row
	rowDepth int
	rowEnd   place // after the first row
}

// hash offset and prime of FNV-1a, 64 bits
const (
	hashOffset = 14695981039346656037
	hashPrime  = 1099511628211
)

// fold folds text; its digest is in hash, and shown says it in words.
func (f *folder) fold(text []byte, plain bool) {
	cut := len(text) > Seen
	f.lexer = lexer{text: text[:min(len(text), Seen)], plain: plain}
	f.hash = hashOffset
	for t := f.next(); t.kind != kindEnd; t = f.next() {
		if cut && f.at == len(f.text) {
			break // it may not be whole
		}
		if !f.skip(t) {
			f.token(t)
		}
	}
	if cut {
		if f.list.pure && f.list.values > 0 {
			f.close(token{kind: kindClose})
		}
		f.write(kindMark, []byte(cutMark), false)
	}
}

// token takes one.
func (f *folder) token(t token) {
	if t.kind == kindSemicolon { // one at the end says nothing
		f.ended = f.n > 0
		return
	}
	if f.ended {
		f.ended = false
		f.write(kindSemicolon, []byte(";"), true)
	}
	if t.kind == kindWord && f.literal(t.text) {
		t.kind = kindValue
	}
	f.further = f.further && t.kind == kindOpen || f.folded && t.kind == kindComma
	f.folded = false
	switch t.kind {
	case kindOpen:
		f.open(t)
	case kindClose:
		f.close(t)
	case kindValue:
		f.value(t)
	case kindSign:
		f.sign(t)
	case kindComma:
		f.list.pure = f.list.pure && !f.list.wants
		f.list.wants = true
		f.write(t.kind, t.text, t.tight)
	case kindWord:
		f.list.pure = false
		f.write(t.kind, t.text, t.tight)
		if f.class = classify(t.text); f.class == classRows {
			f.row = rowAwaited
		}
	default:
		f.list.pure = false
		f.write(t.kind, t.text, t.tight)
	}
}

// open begins a parenthesis.
func (f *folder) open(t token) {
	f.list = list{
		place: f.place, tight: t.tight, pure: true, wants: true, further: f.further,
		listing: f.further || f.last == kindWord && (f.class == classIn || f.class == classRows),
	}
	f.further = false
	f.depth++
	f.write(t.kind, t.text, t.tight)
}

// close ends one; a list becomes (?+), and several of them one.
func (f *folder) close(t token) {
	f.depth--
	l := f.list
	f.list.pure = false
	if l.pure && (l.values > 1 || l.values == 1 && l.listing) {
		f.place = l.place
		if l.further {
			f.place = f.lists
		} else {
			f.write(kindOpen, []byte("("), l.tight)
			f.write(kindValue, []byte("?+"), true)
			f.write(t.kind, []byte(")"), true)
		}
		f.lists, f.folded = f.place, true
	} else {
		f.write(t.kind, t.text, t.tight)
	}
	if f.row == rowInside && f.depth == f.rowDepth {
		f.row = rowEnded
	}
}

// value writes a literal. A sign before it is part of it, and so is a string before it.
func (f *folder) value(t token) {
	if f.unary && f.last == kindSign {
		f.place = f.signed
	}
	f.unary = false
	if f.last == kindValue {
		return
	}
	f.list.pure = f.list.pure && f.list.wants
	f.list.wants = false
	if f.list.values++; t.many {
		f.list.values++
	}
	f.write(kindValue, []byte("?"), t.tight)
}

// sign writes + or -, and remembers it if it may belong to a number.
func (f *folder) sign(t token) {
	var operand bool
	switch f.last {
	case kindWord:
		operand = f.class == classOther
	case kindName, kindValue, kindClose:
		operand = true
	}
	if !operand && (!f.unary || f.last != kindSign) {
		f.signed = f.place
	}
	f.unary = !operand
	f.list.pure = f.list.pure && f.list.wants && !operand
	f.write(t.kind, t.text, t.tight)
}

// skip follows the rows of an INSERT, and reports whether t is in one that is not the first.
func (f *folder) skip(t token) bool {
	switch f.row {
	case rowAwaited:
		f.row, f.rowDepth = rowInside, f.depth
		if t.kind != kindOpen {
			f.row = rowNone
		}
	case rowEnded:
		f.row, f.rowEnd = rowComma, f.place
		if t.kind != kindComma {
			f.row = rowNone
		}
	case rowComma:
		if f.row = rowNone; t.kind == kindOpen {
			f.row, f.place, f.folded = rowSkipped, f.rowEnd, false
			f.depth++
			return true
		}
	case rowSkipped:
		f.within(t)
		return true
	}
	return false
}

// within follows a row that is skipped.
func (f *folder) within(t token) {
	switch t.kind {
	case kindOpen:
		f.depth++
	case kindClose:
		if f.depth--; f.depth == f.rowDepth {
			f.row = rowEnded
		}
	}
}

// literal reports whether a word is a value.
func (f *folder) literal(word []byte) bool {
	if len(word) != 4 && len(word) != 5 || f.last == kindWord && f.class == classIs {
		return false
	}
	var b [5]byte
	switch string(lowered(b[:0], word)) {
	case "null", "true", "false":
		return true
	}
	return false
}

// classify says what a word means to what comes after it.
func classify(word []byte) class {
	if len(word) > len("interval") {
		return classOther
	}
	var b [8]byte
	switch string(lowered(b[:0], word)) {
	case "in":
		return classIn
	case "values", "value":
		return classRows
	case "is", "not":
		return classIs
	case "select", "where", "and", "or", "xor", "on", "having", "between", "like", "case", "when", "then", "else", "if", "interval",
		"limit", "offset", "by", "return", "div", "mod", "set", "distinct", "default":
		return classOpens
	}
	return classOther
}

func lowered(to, word []byte) []byte {
	for _, c := range word {
		to = append(to, lower[c])
	}
	return to
}

// write adds a token to text and hash.
func (f *folder) write(k kind, text []byte, tight bool) {
	if f.spaced(k, tight) {
		f.put(' ')
	}
	h, out := f.hash, f.out[f.n:]
	shown := min(len(text), len(out))
	for i, c := range text[:shown] {
		c = lower[c]
		h = (h ^ uint64(c)) * hashPrime
		out[i] = c
	}
	f.n += shown
	for _, c := range text[shown:] {
		h = (h ^ uint64(lower[c])) * hashPrime
		f.over = true
	}
	f.hash = (h ^ 0xff) * hashPrime
	f.last = k
}

func (f *folder) put(c byte) {
	if f.n == len(f.out) {
		f.over = true
		return
	}
	f.out[f.n] = c
	f.n++
}

// spaced reports whether a space stands before a token.
func (f *folder) spaced(k kind, tight bool) bool {
	switch {
	case f.n == 0, k == kindComma, k == kindClose, k == kindDot, k == kindSemicolon, f.last == kindOpen, f.last == kindDot:
		return false
	case k == kindOpen:
		return !tight || f.last == kindComma
	}
	return true
}

// shown is the folded statement, in characters that a terminal only shows.
func (f *folder) shown() string {
	text := strings.ToValidUTF8(string(f.out[:f.n]), "?")
	if f.over {
		text += cutMark
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || 0x7f <= r && r < 0xa0 {
			return '?'
		}
		return r
	}, text)
}

// lower has ASCII's letters in lower case, and all else as it is.
var lower = func() (table [256]byte) {
	for c := range table {
		table[c] = byte(c)
		if 'A' <= c && c <= 'Z' {
			table[c] += 'a' - 'A'
		}
	}
	return table
}()
