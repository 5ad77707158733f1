package main

import (
	"os/exec"
	"time"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/status"
)

// hold is run by the units that end a failed boot of an initramfs with systemd, before
// what they do: open a shell, or what rd.emergency= says. While unlock has not done its
// part, whatever failed in the image failed for want of a volume, and they wait. When it
// has, the boot begins again, and hold fails, so that they do nothing. Where unlock had
// done its part already, hold returns once no shell can have the keys any more.
func hold() boot.Outcome {
	cmdline, err := kernelCommandLine()
	if cfg, cerr := config.Load(config.DefaultFile, cmdline); err == nil && cerr == nil && cfg.Skip || opened() {
		return supervisor(new(parent)).Close() // what follows may be a shell
	}
	kernelLog.Errorf("something in the image gave up; the boot waits until the required volumes are open")
	for !opened() {
		<-time.After(time.Second)
	}
	kernelLog.Warnf("the required volumes are open; the boot begins again")
	if err := exec.Command("systemctl", "--no-block", "default").Run(); err != nil {
		kernelLog.Failure(err)
	}
	return boot.Locked
}

// opened reports whether unlock has done its part, as far as its turn has come.
func opened() bool {
	b, err := status.Read(status.DefaultFile)
	return err == nil && b.Result != status.ResultFailed
}
