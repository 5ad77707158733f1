package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/status"
)

// hold is run by what ends a failed boot of an initramfs with systemd, units and dracut's
// scripts, before what they do: open a shell, or what rd.emergency= says. While unlock has
// not done its part, whatever failed in the image failed for want of a volume, and they
// wait. When it has, the boot begins again, and hold fails, so that they do nothing; a unit
// is stopped by the boot that begins again, and as hold waits for that and does not fail, the
// unit is none that failed. Where unlock had done its part already, hold returns once no
// shell can have the keys any more. unit is the name of the unit, "" for a script.
func hold(unit string) boot.Outcome {
	cmdline, err := kernelCommandLine()
	if cfg, cerr := config.Load(config.DefaultFile, cmdline); err == nil && cerr == nil && cfg.Skip || opened() {
		return supervisor(new(parent)).Close() // what follows may be a shell
	}
	kernelLog.Errorf("something in the image gave up; the boot waits until the required volumes are open")
	for !opened() {
		<-time.After(time.Second)
	}
	kernelLog.Warnf("the required volumes are open; the boot begins again")
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGTERM)
	dismiss()
	if err := exec.Command("systemctl", "--no-block", "default").Run(); err != nil {
		kernelLog.Failure(err)
	}
	if unit != "" && beingStopped(signals, func() bool { return deactivating(unit) }, time.Minute) {
		return boot.Done
	}
	return boot.Locked
}

// beingStopped waits until a signal came by which systemd stops the unit, which it then reports
// true for. Any other signal is none to go on for: what the unit would start next is the
// shell. After the limit, something else has a use for the unit.
func beingStopped(signals <-chan os.Signal, deactivating func() bool, limit time.Duration) bool {
	end := time.After(limit)
	for {
		select {
		case <-signals:
			if deactivating() {
				return true
			}
		case <-end:
			return false
		}
	}
}

// deactivating reports whether systemd is stopping the unit; where it does not say, it is not.
func deactivating(unit string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	state, _ := exec.CommandContext(ctx, "systemctl", "is-active", unit).Output() // it fails for all but active
	return string(bytes.TrimSpace(state)) == "deactivating"
}

// dismiss ends dracut's scripts that gave up, or are about to: what they obey when their
// shell ends, or there is none, may be rd.emergency=poweroff. The boot that begins again
// starts those that it needs. One of them may be the parent of this process.
func dismiss() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	// Where there are none, systemctl fails.
	_ = exec.CommandContext(ctx, "systemctl", "stop", "dracut-initqueue.service", "dracut-pre-mount.service", "dracut-mount.service").Run()
}

// opened reports whether unlock has done its part, as far as its turn has come.
func opened() bool {
	b, err := status.Read(status.DefaultFile)
	return err == nil && b.Result != status.ResultFailed
}
