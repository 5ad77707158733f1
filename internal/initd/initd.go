// Package initd does what the kernel expects of the first process in the
// standalone image: it mounts the kernel's file systems, loads the modules that
// the image lists, makes device nodes visible, mounts root= and switches to it.
// It knows nothing of volumes or AWS.
package initd

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// Root is where root= is mounted.
const Root = "/sysroot"

// kernelMounts are the kernel's file systems, in the order in which they are
// mounted; SwitchRoot moves them.
var kernelMounts = []struct {
	dir, fstype, data string
	flags             uintptr
}{
	{"/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"/dev", "devtmpfs", "mode=0755", unix.MS_NOSUID},
	{"/run", "tmpfs", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
}

// Start mounts /proc, /sys, /dev and /run and opens the console. It does all that it
// can; the error is all that went wrong.
func Start() error {
	var errs []error
	for _, m := range kernelMounts {
		if err := unix.Mount(m.fstype, m.dir, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m.dir, err))
		}
	}
	errs = append(errs, openConsole())
	return hint.All(errs...)
}

// LoadModules loads those named in the image's module list, like Start.
func LoadModules() error { return loadList(moduleList) }

// openConsole makes /dev/console the standard files, which the kernel leaves
// closed when the image has no such node.
func openConsole() error {
	f, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	defer f.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(f.Fd()), fd, 0); err != nil && int(f.Fd()) != fd {
			return fmt.Errorf("opening the console: %w", err)
		}
	}
	return nil
}
