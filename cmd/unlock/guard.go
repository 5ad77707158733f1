package main

import (
	"os"
	"strings"
	"time"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/guard"
	"unlock/internal/status"
)

// repeatEvery is how often a boot that is held up says so again.
const repeatEvery = 5 * time.Minute

// guardSystem returns when the system may go on: this boot's initramfs opened what
// /etc/unlock.toml requires, and what is missing besides is covered.
func guardSystem() boot.Outcome {
	if unedited, err := config.Unedited(config.DefaultFile); err == nil && unedited {
		return boot.Done
	}
	cmdline, err := kernelCommandLine()
	if err != nil {
		kernelLog.Failure(err)
		return boot.Locked
	}
	left, err := status.Read(status.DefaultFile)
	if err != nil {
		left = nil
	}
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil {
		if left != nil && left.BootID == bootID() && left.Result != status.ResultFailed {
			kernelLog.Failure(err) // the initramfs had one that was in order
			return boot.Done
		}
		hold(err)
	}
	verdict := guard.Judge(guard.System{Config: cfg, Boot: left, BootID: bootID(),
		Mounted: func(dir string) bool { return fsys.Mounted("/", dir) }})
	for _, note := range verdict.Notes {
		kernelLog.Warnf("%s", note)
	}
	for _, v := range verdict.Cover {
		if err := fsys.Cover("/", v.Mount); err != nil {
			kernelLog.Failure(err)
		}
	}
	if verdict.Missing == nil {
		return boot.Done
	}
	if verdict.Reboot() {
		kernelLog.Failure(verdict.Missing)
		supervisor().Reboot()
	}
	hold(verdict.Missing)
	return boot.Locked
}

// hold says why the boot does not go on, again and again. It does not return: whatever
// waits for this process waits for ever. The machine stays up: powered off, it would
// lose its instance store.
func hold(why error) {
	for {
		kernelLog.Failure(why)
		kernelLog.Errorf("the boot stops here; reboot the instance to try again (stopping it would lose its instance store)")
		<-time.After(repeatEvery)
	}
}

// bootID is the kernel's name for this boot (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}
