package wire

// Traits are what a statement's text says of what it may leave in the session,
// beyond what the server reports by itself. Where the text alone does not tell
// they are set: better once too often.
type Traits uint16

// The traits.
const (
	UserVariable   Traits = 1 << iota // @name: set, or of a session that has set it
	Temporary                         // CREATE TEMPORARY
	Lock                              // LOCK TABLES, GET_LOCK()
	Handle                            // HANDLER
	Prepare                           // PREPARE as a statement
	SetTransaction                    // for the next transaction only
	SetNames                          // its collation is not reported
	SetStatement                      // SET STATEMENT … FOR: reported although it does not last
	Kill                              // KILL
	Rollback                          // ROLLBACK, without a savepoint
	Data                              // SELECT, INSERT, UPDATE, DELETE, REPLACE
	Many                              // more than one statement
)

// Leaves are those that no other session can be given.
const Leaves = UserVariable | Temporary | Lock | Handle | Prepare

// Scanner finds the traits of a statement that is given to it in pieces.
type Scanner struct {
	traits    Traits
	plain     bool // a backslash in a string is itself
	state     scan
	previous  byte
	word      [12]byte
	length    int // of word; more than its size: a longer one
	index     int // words of this statement before word
	first     verb
	statement int // that have begun
}

type scan byte

const (
	scanCode   scan = iota
	scanSingle      // the strings, by their mark
	scanDouble
	scanBack
	scanLine  // a comment to the end of the line
	scanBlock // a comment like this: /* */
	scanAt    // after an @ that may name a user variable
	scanSkip  // after a backslash in a single-quoted string
	scanSkipDouble
)

type verb byte

const (
	verbOther verb = iota
	verbSet
	verbCreate
	verbRollback
)

// NewScanner returns one for a session whose status is status.
func NewScanner(status uint16) Scanner { return Scanner{plain: status&StatusPlainBackslash != 0} }

// Scan returns the traits of a whole statement.
func Scan(text []byte, status uint16) Traits {
	s := NewScanner(status)
	s.Feed(text)
	return s.Traits()
}

// Traits ends the statement.
func (s *Scanner) Traits() Traits {
	s.endWord()
	return s.traits
}

// Feed takes the next piece.
func (s *Scanner) Feed(text []byte) {
	for len(text) > 0 {
		n := s.run(text)
		if n == 0 {
			n = 1
			s.sign(text[0])
		}
		s.previous = text[n-1]
		text = text[n:]
	}
}

// run takes those of the next bytes that are the inside of a word or of a string.
func (s *Scanner) run(text []byte) (n int) {
	switch s.state {
	case scanCode:
		for ; n < len(text) && lower[text[n]] != 0; n++ {
			if s.length < len(s.word) {
				s.word[s.length] = lower[text[n]]
			}
			s.length++
		}
	case scanSingle, scanDouble:
		for n < len(text) && text[n] != '\'' && text[n] != '"' && text[n] != '\\' {
			n++
		}
	}
	return n
}

// sign takes one byte.
func (s *Scanner) sign(c byte) {
	switch s.state {
	case scanCode:
		s.code(c)
	case scanAt:
		s.at(c)
	default:
		s.quoted(c)
	}
}

// lower has the letters of words, in lower case; zero for all else.
var lower = func() (table [256]byte) {
	for c := range table {
		switch {
		case 'A' <= c && c <= 'Z':
			table[c] = byte(c) + 'a' - 'A'
		case letter(byte(c)):
			table[c] = byte(c)
		}
	}
	return table
}()

// quoted is inside of a string or a comment.
func (s *Scanner) quoted(c byte) {
	switch s.state {
	case scanSingle:
		s.inString(c, '\'', scanSkip)
	case scanDouble:
		s.inString(c, '"', scanSkipDouble)
	case scanSkip:
		s.state = scanSingle
	case scanSkipDouble:
		s.state = scanDouble
	case scanBack:
		if c == '`' {
			s.state = scanCode
		}
	case scanLine:
		if c == '\n' {
			s.state = scanCode
		}
	case scanBlock:
		s.inBlock(c)
	}
}

func (s *Scanner) inString(c, mark byte, escaped scan) {
	switch {
	case c == mark: // a doubled one ends the string and begins another
		s.state = scanCode
	case c == '\\' && !s.plain:
		s.state = escaped
	}
}

// inBlock ends at */. What the server executes, /*! and /*M!, is code, and its end is no sign that counts.
func (s *Scanner) inBlock(c byte) {
	switch {
	case c == '!' && (s.previous == '*' || s.previous == 'M') || s.previous == '*' && c == '/':
		s.state = scanCode
	}
}

func (s *Scanner) code(c byte) {
	s.endWord()
	switch c {
	case '\'':
		s.state = scanSingle
	case '"':
		s.state = scanDouble
	case '`':
		s.state = scanBack
	case '#':
		s.state = scanLine
	case '-':
		if s.previous == '-' {
			s.state = scanLine
		}
	case '*':
		if s.previous == '/' {
			s.state = scanBlock
		}
	case '@':
		s.state = scanAt
		if letter(s.previous) || s.previous == '\'' || s.previous == '"' || s.previous == '`' { // user@host
			s.state = scanCode
		}
	case ';':
		s.index = 0
	}
}

// at is after an @: a second one makes it a system variable.
func (s *Scanner) at(c byte) {
	s.state = scanCode
	if c == '@' {
		return
	}
	s.traits |= UserVariable
	if s.run([]byte{c}) == 0 {
		s.code(c)
	}
}

func letter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

func (s *Scanner) endWord() {
	if s.length == 0 {
		return
	}
	if s.index > 0 && s.first == verbOther && s.length != len("get_lock") { // most words
		s.length = 0
		s.index++
		return
	}
	word := ""
	if s.length <= len(s.word) {
		word = string(s.word[:s.length])
	}
	s.length = 0
	if '0' <= s.word[0] && s.word[0] <= '9' && s.index == 0 {
		return // the version in /*!40101 SET
	}
	if s.index == 0 {
		s.begin(word)
	} else {
		s.further(word)
	}
	s.index++
}

// begin is a statement's first word.
func (s *Scanner) begin(word string) {
	if s.statement++; s.statement > 1 {
		s.traits |= Many
	}
	s.first = verbOther
	switch word {
	case "set":
		s.first = verbSet
	case "create":
		s.first = verbCreate
	case "lock":
		s.traits |= Lock
	case "handler":
		s.traits |= Handle
	case "prepare":
		s.traits |= Prepare
	case "kill":
		s.traits |= Kill
	case "rollback":
		s.first = verbRollback
		s.traits |= Rollback
	case "select", "insert", "update", "delete", "replace":
		s.traits |= Data
	}
}

// further is a further word.
func (s *Scanner) further(word string) {
	switch {
	case word == "get_lock":
		s.traits |= Lock
	case s.first == verbCreate && s.index <= 3 && word == "temporary":
		s.traits |= Temporary
	case s.first == verbRollback && word == "to":
		s.traits &^= Rollback
	case s.first == verbSet && s.index == 1:
		s.set(word)
	}
}

func (s *Scanner) set(word string) {
	switch word {
	case "transaction":
		s.traits |= SetTransaction
	case "names":
		s.traits |= SetNames
	case "statement":
		s.traits |= SetStatement
	}
}
