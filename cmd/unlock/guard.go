package main

import (
	"os"
	"strings"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/status"
)

// guardSystem returns when the system may go on: this boot's initramfs opened what
// /etc/unlock.toml requires, and what is missing besides is covered.
func guardSystem() boot.Outcome {
	if unedited, err := config.Unedited(config.DefaultFile); err == nil && unedited {
		return boot.Done
	}
	s := supervisor(new(parent))
	s.Cap = nil // the initramfs has seen to it
	cmdline, err := kernelCommandLine()
	if err != nil {
		s.Stop(err)
	}
	before, err := status.Read(status.DefaultFile)
	if err != nil {
		before = nil
	}
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil {
		if before != nil && before.BootID == bootID() && before.Result != status.ResultFailed {
			kernelLog.Failure(err) // the initramfs had one that was in order
			return boot.Done
		}
		s.Stop(err)
	}
	verdict := boot.Guard{Config: cfg, Boot: before, BootID: bootID(),
		Mounted: func(dir string) bool { return fsys.Mounted("/", dir) }}.Judge()
	for _, note := range verdict.Notes {
		kernelLog.Warnf("%s", note)
	}
	for _, v := range verdict.Cover {
		if err := fsys.Cover("/", v.Dir); err != nil {
			kernelLog.Failure(err)
		}
	}
	switch {
	case verdict.Missing == nil:
		return boot.Done
	case verdict.Reboot():
		kernelLog.Failure(verdict.Missing)
		s.Reboot()
	}
	s.Stop(verdict.Missing)
	return boot.Locked
}

// bootID is the kernel's name for this boot (random(4)).
func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}
