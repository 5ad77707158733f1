// Package plain makes text fit to be shown on a terminal or the console, whoever
// wrote it: labels and tokens of disks, answers of servers, names of files. Control
// characters, terminal escapes, invisible and reordering characters are written as in
// a Go string, and what is long is cut.
package plain

import (
	"bytes"
	"io"
	"strconv"
	"unicode/utf8"
)

// Max is how long a line may be, in bytes: more than any message of ours, and what
// the kernel takes for its log at once.
const Max = 900

// Text returns a text in one line of at most Max bytes.
func Text(s string) string { return string(line([]byte(s), Max)) }

// line returns what is shown for a line, of at most so many bytes.
func line(line []byte, most int) (to []byte) {
	for len(line) > 0 {
		at := len(to)
		r, n := utf8.DecodeRune(line)
		switch {
		case r == utf8.RuneError && n == 1:
			to = append(to, `\x`...)
			to = append(to, "0123456789abcdef"[line[0]>>4], "0123456789abcdef"[line[0]&15])
		case shown(r):
			to = append(to, line[:n]...)
		default:
			quoted := strconv.AppendQuoteRune(nil, r)
			to = append(to, quoted[1:len(quoted)-1]...)
		}
		if len(to) > most-len("…") {
			return append(to[:at], "…"...)
		}
		line = line[n:]
	}
	return to
}

func shown(r rune) bool { return r == '\t' || strconv.IsPrint(r) }

// Writer passes on lines as Text has them, each of at most Most bytes. What needs no
// change is not copied.
type Writer struct {
	W    io.Writer
	Most int
}

func (w Writer) Write(b []byte) (int, error) {
	for out := range bytes.Lines(b) {
		text, newline := bytes.CutSuffix(out, []byte("\n"))
		if len(text) > w.Most || !clean(text) {
			out = line(text, w.Most)
			if newline {
				out = append(out, '\n')
			}
		}
		if _, err := w.W.Write(out); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func clean(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 || !shown(r) {
			return false
		}
		b = b[n:]
	}
	return true
}
