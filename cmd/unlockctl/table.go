package main

import (
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"unlock/internal/hint/plain"
)

// table prints rows in columns as wide as their longest cells; the last one is not
// padded. On a terminal words that say whether something is good or bad are painted.
func (c console) table(rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain.Text(cell)
			if len(widths) <= i {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(c.colour(cell))
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		if _, err := fmt.Fprintln(raw(c.out), strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// colour paints a word that is good or bad, on a terminal. What it returns is printed
// raw; the word is one of ours, or plain.
func (c console) colour(word string) string {
	colours := map[string]string{"done": "32", "ok": "32", "failed": "31", "FAIL": "31", "warn": "33"}
	if n := colours[word]; n != "" && terminal(c.out) && os.Getenv("NO_COLOR") == "" {
		return "\x1b[" + n + "m" + word + "\x1b[0m"
	}
	return word
}

// wrapped joins words to lines of about so many characters.
func wrapped(words []string, width int) []string {
	lines := []string{""}
	for _, w := range words {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case len(*last)+1+len(w) <= width:
			*last += " " + w
		default:
			lines = append(lines, w)
		}
	}
	return lines
}
