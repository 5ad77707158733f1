// Package initd does what the kernel expects of the first process in the
// standalone image: it mounts the kernel's file systems, loads the modules that
// the image lists, makes device nodes visible, mounts root= and switches to it.
// It knows nothing of volumes or AWS.
package initd

import (
	"context"

	"unlock/internal/block"
)

// Root is where root= is mounted.
const Root = "/sysroot"

// Start mounts /proc, /sys, /dev and /run, opens the console and loads the
// modules named in the image's module list.
func Start() error { panic("stub") }

// MountRoot waits for the device that root= on the kernel command line names and
// mounts it on Root as rootfstype=, rootflags=, ro and rw say.
func MountRoot(ctx context.Context, f *block.Finder, cmdline string) error { panic("stub") }

// SwitchRoot moves the kernel's file systems below Root, deletes the initramfs,
// and executes init= of the command line, else /sbin/init. It returns only on failure.
func SwitchRoot(cmdline string) error { panic("stub") }

// Halt ends a failed boot: it says so on the console and follows panic= of the
// kernel command line. It does not return.
func Halt(cmdline string) { panic("stub") }
