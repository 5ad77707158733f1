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
		within(unix.Sync)
		for {
			_ = unix.Pause() // signals end it, and the first process must not end
		}
	}
	seconds = max(seconds, 0)
	fmt.Fprintf(os.Stderr, "unlock: the boot stops here; rebooting in %d s (panic=%s)\n", seconds, value)
	<-time.After(time.Duration(seconds) * time.Second)
	err = Restart()
	fmt.Fprintln(os.Stderr, "unlock: rebooting:", err)
	for {
		_ = unix.Pause()
	}
}

// restartFor is how long each part of a restart may take: to have disks take what is to
// be written, and to shut down devices. The kernel waits for ever for one that does not
// answer.
const restartFor = 10 * time.Second

// Restart restarts the machine, in spite of disks that do not answer. It returns if it
// cannot.
func Restart() error {
	if !within(unix.Sync) {
		fmt.Fprintln(os.Stderr, "unlock: a disk does not take what is to be written; restarting without")
	}
	var err error
	if within(func() { err = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) }) {
		return err
	}
	// Documentation/admin-guide/sysrq.rst: at once, without shutting down anything.
	return os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0)
}

// within reports whether f has ended in time.
func within(f func()) bool {
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(restartFor):
		return false
	}
}
