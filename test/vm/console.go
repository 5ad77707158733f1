package vm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Console is what a machine printed.
type Console []Line

// Line is one line of the console.
type Line struct {
	At   time.Duration // since QEMU was started
	Text string        // without control characters
}

// String returns the text, each line with its time in seconds.
func (c Console) String() string {
	var b strings.Builder
	for _, l := range c {
		fmt.Fprintf(&b, "%7.3f  %s\n", l.At.Seconds(), l.Text)
	}
	return b.String()
}

// Tail returns the last n lines.
func (c Console) Tail(n int) Console { return c[max(0, len(c)-n):] }

// Contains says whether a line contains text.
func (c Console) Contains(text string) bool {
	for _, l := range c {
		if strings.Contains(l.Text, text) {
			return true
		}
	}
	return false
}

// trigger is what happens to the machine when its console first shows a text.
type trigger struct {
	text  string
	typed bool // one line of the console is answered once
	do    func()
	done  bool
}

// read collects the console and pulls the triggers. A text need not be a whole
// line: a question is none.
func (m *Machine) read(r io.Reader, start time.Time, triggers []trigger) Console {
	var c Console
	var pending []byte
	chunk := make([]byte, 4096)
	answered := -1 // number of that line
	show := func(text string) {
		for i := range triggers {
			t := &triggers[i]
			if t.done || !strings.Contains(text, t.text) || t.typed && answered == len(c) {
				continue
			}
			if t.done = true; t.typed {
				answered = len(c)
			}
			t.do()
		}
	}
	line := func(text []byte) {
		l := Line{At: time.Since(start), Text: printable(string(text))}
		show(l.Text)
		c = append(c, l)
		if m.Output != nil {
			fmt.Fprintln(m.Output, l.Text)
		}
	}
	for {
		n, err := r.Read(chunk)
		pending = append(pending, chunk[:n]...)
		for {
			text, rest, found := bytes.Cut(pending, []byte("\n"))
			if !found {
				break
			}
			line(text)
			pending = rest
		}
		if err == nil {
			show(printable(string(pending)))
			continue
		}
		if len(pending) > 0 {
			line(pending)
		}
		if !errors.Is(err, io.EOF) {
			c = append(c, Line{At: time.Since(start), Text: "console: " + err.Error()})
		}
		return c
	}
}

// printable drops control characters and the escape sequences of the firmware.
func printable(text string) string {
	var b strings.Builder
	escape := false
	for _, r := range text {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r == '[' || r == ';' || r >= '0' && r <= '9' || r == '?' || r == '='
		case r >= ' ' || r == '\t':
			b.WriteRune(r)
		}
	}
	return b.String()
}
