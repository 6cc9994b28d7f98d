package cli

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// table aligns columns: text to the left, numbers to the right. Unlike
// tabwriter it counts no colour as width.
type table struct {
	right  []bool // columns aligned to the right; the others, and further ones, to the left
	colour bool
	rows   [][]cell
}

// cell is one word of a table.
type cell struct {
	text   string
	colour string // an escape sequence of the terminal; empty: none
}

// Colours of a terminal (ECMA-48, 8.3.117).
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

func (t *table) row(cells ...cell) { t.rows = append(t.rows, cells) }

// head is the first row, of words in capitals.
func (t *table) head(words ...string) {
	cells := make([]cell, len(words))
	for i, w := range words {
		cells[i] = cell{text: w}
	}
	t.row(cells...)
}

// write prints the table, each line indented.
func (t *table) write(w io.Writer, indent string) error {
	var widths []int
	for _, r := range t.rows {
		for i, c := range r {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, r := range t.rows {
		var line strings.Builder
		for i, c := range r {
			line.WriteString(t.pad(c, i, widths[i]) + "  ")
		}
		b.WriteString(indent + strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) pad(c cell, column, width int) string {
	text, fill := c.text, strings.Repeat(" ", width-utf8.RuneCountInString(c.text))
	if t.colour && c.colour != "" {
		text = c.colour + text + plain
	}
	if column < len(t.right) && t.right[column] {
		return fill + text
	}
	return text + fill
}

// terminal reports whether w is one; only there are colours and movements written.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
