package main

import (
	"fmt"
	"os"
	"strings"

	"unlock/internal/unlock"
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

// complain tells of a failure, each cause in a line of its own with its hint.
func complain(err error) {
	for _, cause := range causes(err) {
		logf(levelError, "%v", cause)
		if hint := unlock.Hint(cause); hint != "" {
			logf(levelError, "hint: %s", hint)
		}
	}
}

// causes takes apart what errors.Join has joined at the top.
func causes(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || !isJoin(err, joined.Unwrap()) {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, causes(e)...)
	}
	return all
}

// isJoin tells errors.Join, whose text is that of its parts, from fmt.Errorf with
// several %w.
func isJoin(err error, parts []error) bool {
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.Error())
	}
	return err.Error() == strings.Join(texts, "\n")
}
