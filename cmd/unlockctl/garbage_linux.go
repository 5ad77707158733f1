package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// Passphrases are wiped by who handles them, but the SDK, TLS and the QR code make
// copies that nobody can reach. They are garbage when a command has ended, and the
// collector overwrites what it frees if its setting clobberfree says so.
const clobber = "clobberfree=1"

// overwritesGarbage starts the program again with that setting and the one for key
// material, which are read at the start only. The process remains the same.
func overwritesGarbage() error {
	settings := os.Getenv("GODEBUG")
	if strings.Contains(settings, clobber) {
		return nil
	}
	if settings != "" {
		settings += ","
	}
	if err := os.Setenv("GODEBUG", settings+clobber+","+secret.NoPreemption); err != nil {
		return err
	}
	return fmt.Errorf("starting anew: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// overwriteGarbage overwrites what a command has left behind.
func overwriteGarbage() {
	for range 2 { // what has a finalizer is freed the second time
		runtime.GC()
	}
}
