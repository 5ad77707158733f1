package main

import (
	"fmt"
	"os"

	"unlock/internal/boot"
)

// kernelLog writes to the kernel log, from where lines reach the console, or to
// standard error where there is no kernel log. The file is opened anew for each,
// because the kernel limits the lines per opening.
var kernelLog boot.Logger = func(l boot.Level, line string) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err == nil {
		defer f.Close()
		_, err = fmt.Fprintf(f, "<%d>unlock: %s\n", l, line)
	}
	if err != nil {
		standardError(l, line)
	}
}

// standardError is the log of what runs on a system that is up.
var standardError boot.Logger = func(_ boot.Level, line string) {
	fmt.Fprintln(os.Stderr, "unlock: "+line)
}
