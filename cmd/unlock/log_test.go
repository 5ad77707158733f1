package main

import (
	"strings"
	"testing"
)

// TestCut: no line is longer than the kernel takes, and none of its words is lost.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]string{
		"short":    "a line",
		"exact":    strings.Repeat("x", longest),
		"long":     strings.Repeat("a word of many ", 200),
		"one word": strings.Repeat("x", 3*longest+1),
		"blank":    " " + strings.Repeat("x", 2*longest),
	} {
		var parts []string
		for now, rest := cut(line); ; now, rest = cut(rest) {
			if parts = append(parts, now); len(now) > longest {
				t.Errorf("%s: a part of %d bytes", name, len(now))
			}
			if rest == "" {
				break
			}
		}
		strip := func(s string) string { return strings.ReplaceAll(s, " ", "") }
		if got := strings.Join(parts, " "); strip(got) != strip(line) || len(line) <= longest && len(parts) != 1 {
			t.Errorf("%s: %d parts of %d bytes: %.100q", name, len(parts), len(line), parts)
		}
	}
}
