package main

import (
	"os"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/guard"
	"unlock/internal/status"
)

// repeatEvery is how often a boot that is held up says so again.
const repeatEvery = 5 * time.Minute

// guardSystem returns when the system may go on: this boot's initramfs opened what
// /etc/unlock.toml requires, and what is missing besides is covered.
func guardSystem() error {
	if unedited, err := config.Unedited(config.DefaultFile); err == nil && unedited {
		return nil
	}
	cmdline, err := kernelCommandLine()
	if err != nil {
		complain(err)
		return err
	}
	boot, err := status.Read(status.DefaultFile)
	if err != nil {
		boot = nil
	}
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil {
		if boot != nil && boot.BootID == bootID() && boot.Result != status.ResultFailed {
			complain(err) // the initramfs had one that was in order
			return nil
		}
		hold(err)
	}
	verdict := guard.Judge(guard.System{Config: cfg, Boot: boot, BootID: bootID(),
		Mounted: func(dir string) bool { return fsys.Mounted("/", dir) }})
	for _, note := range verdict.Notes {
		logf(levelWarning, "%s", note)
	}
	for _, v := range verdict.Cover {
		if err := fsys.Cover("/", v.Mount); err != nil {
			complain(err)
		}
	}
	if verdict.Missing == nil {
		return nil
	}
	if verdict.Reboot() {
		complain(verdict.Missing)
		reboot()
	}
	hold(verdict.Missing)
	return nil
}

// hold says why the boot does not go on, again and again. It does not return: whatever
// waits for this process waits for ever. The machine stays up: powered off, it would
// lose its instance store.
func hold(why error) {
	for {
		complain(why)
		logf(levelError, "the boot stops here; reboot the instance to try again (stopping it would lose its instance store)")
		<-time.After(repeatEvery)
	}
}

// bootID is the kernel's name for this boot (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}
