package main

import (
	"fmt"
	"os"
	"strings"

	"unlock/internal/boot"
)

// kernelLog writes to the kernel log, from where lines reach the console, or to
// standard error where there is no kernel log. The file is opened anew for each,
// because the kernel limits the lines per opening.
var kernelLog boot.Logger = func(l boot.Level, line string) {
	for rest := line; rest != ""; {
		line, rest = cut(rest)
		f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(f, "<%d>unlock: %s\n", l, line)
			f.Close()
		}
		if err != nil {
			standardError(l, line)
		}
	}
}

// longest is how many bytes the kernel takes of a line, less what precedes it
// (LOG_LINE_MAX).
const longest = 960

// cut cuts a line at the last blank before which the kernel takes it.
func cut(line string) (now, rest string) {
	if len(line) <= longest {
		return line, ""
	}
	at := strings.LastIndexByte(line[:longest], ' ')
	if at < 1 {
		return line[:longest], line[longest:]
	}
	return line[:at], line[at+1:]
}

// standardError is the log of what runs on a system that is up.
var standardError boot.Logger = func(_ boot.Level, line string) {
	fmt.Fprintln(os.Stderr, "unlock: "+line)
}
