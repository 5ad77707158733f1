package main

import (
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
// (hold unit) is stopped by the boot that begins again, and as hold waits for that and does
// not fail, the unit is none that failed. Where unlock had done its part already, hold
// returns once no shell can have the keys any more.
func hold(unit bool) boot.Outcome {
	cmdline, err := kernelCommandLine()
	if cfg, cerr := config.Load(config.DefaultFile, cmdline); err == nil && cerr == nil && cfg.Skip || opened() {
		return supervisor(new(parent)).Close() // what follows may be a shell
	}
	kernelLog.Errorf("something in the image gave up; the boot waits until the required volumes are open")
	for !opened() {
		<-time.After(time.Second)
	}
	kernelLog.Warnf("the required volumes are open; the boot begins again")
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, unix.SIGHUP, unix.SIGTERM)
	dismiss()
	if err := exec.Command("systemctl", "--no-block", "default").Run(); err != nil {
		kernelLog.Failure(err)
	}
	if unit {
		select {
		case <-stopped:
			return boot.Done
		case <-time.After(time.Minute): // something else has a use for this unit
		}
	}
	return boot.Locked
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
