package initd

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/config"
)

// Halt ends a failed boot: it says so on the console and follows panic= of the
// kernel command line: a positive number reboots after as many seconds, a
// negative one at once. Without it the machine stands still for its operator. It
// never powers off: EC2 would stop the instance, and a stopped instance loses
// its instance store, which a reboot keeps. It does not return.
func Halt(cmdline string) {
	value, _ := config.Setting(cmdline, "panic")
	seconds, err := strconv.Atoi(value)
	if err != nil || seconds == 0 {
		fmt.Fprintln(os.Stderr, "unlock: the boot stops here; reboot the instance to try again (stopping it would lose its instance store)")
		Sync()
		for {
			_ = unix.Pause() // signals end it, and the first process must not end
		}
	}
	seconds = max(seconds, 0)
	fmt.Fprintf(os.Stderr, "unlock: the boot stops here; rebooting in %d s (panic=%s)\n", seconds, value)
	<-time.After(time.Duration(seconds) * time.Second)
	Sync()
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Fprintln(os.Stderr, "unlock: rebooting:", err)
	for {
		_ = unix.Pause()
	}
}

// syncFor is how long is waited for disks to take what is to be written.
const syncFor = 10 * time.Second

// Sync has the kernel write what is to be written, but does not wait for ever for a disk
// that does not answer.
func Sync() {
	done := make(chan struct{})
	go func() {
		unix.Sync()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(syncFor):
		fmt.Fprintf(os.Stderr, "unlock: a disk has not taken what is to be written within %.0f s; going on without\n", syncFor.Seconds())
	}
}
