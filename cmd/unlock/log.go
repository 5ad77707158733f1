package main

import (
	"fmt"
	"os"
	"strings"

	"unlock/internal/hint"
)

// Levels of the kernel log, linux/kern_levels.h.
const (
	levelError   = 3
	levelWarning = 4
	levelInfo    = 6
)

// logf writes one line to the kernel log, from where it reaches the console, or
// to standard error where there is no kernel log. The file is opened anew each
// time, because the kernel limits the lines per opening.
func logf(level int, format string, args ...any) {
	line := fmt.Sprintf("unlock: "+format, args...)
	line = strings.ReplaceAll(line, "\n", "; ")
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, line)
		return
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "<%d>%s\n", level, line); err != nil {
		fmt.Fprintln(os.Stderr, line)
	}
}

func warn(format string, args ...any) { logf(levelWarning, format, args...) }

// complain reports a failure, each cause in a line of its own with its hint.
func complain(err error) {
	for _, cause := range hint.Each(err) {
		logf(levelError, "%v", cause)
		if advice := hint.Of(cause); advice != "" {
			logf(levelError, "hint: %s", advice)
		}
	}
}
