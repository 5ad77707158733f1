// Command unlock opens, and where allowed formats, the LUKS volumes that
// /etc/unlock.toml describes, with passphrases that AWS KMS decrypts for the
// instance's role. It runs once, in the initramfs, before the root pivot.
//
//	unlock                 the volumes on disks
//	unlock mount NEWROOT   those in files of the new root, and all mounts
//	unlock needs           lists what an initramfs must contain, for its builders
//	unlock guard           in the real system: holds up a boot whose initramfs did not open
//	                       what is required (guard.go)
//
// As process 1 of the standalone image it does both, and init's part around them.
// The first part is confined to its disks (confine.go), which forbids it to mount.
//
// Exit status: 0 done or nothing to do; 1 a required volume stayed locked;
// 2 bad configuration.
package main

import (
	"context"
	"errors"
	"io"
	"log"
	"os"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/initd"
	"unlock/internal/status"
)

// version is set by the linker.
var version = "devel"

// Exit statuses; exitReboot is the worker's word to its parent.
const (
	exitLocked    = 1
	exitBadConfig = 2
	exitReboot    = 3
)

func main() {
	log.SetOutput(io.Discard) // net/http tells of odd answers there, quoting them
	args := os.Args[1:]
	switch {
	case os.Getpid() == 1:
		bootMachine()
	case len(args) > 0 && args[0] == workerMark:
		finishWorker(exitStatus(work(context.Background(), args[1:])))
	case len(args) == 1 && args[0] == "needs":
		os.Exit(exitStatus(printNeeds(os.Stdout, config.DefaultFile)))
	case len(args) == 1 && args[0] == "guard":
		os.Exit(exitStatus(guardSystem()))
	case len(args) == 0, len(args) == 2 && args[0] == "mount":
		os.Exit(supervise(args))
	}
	complain(&config.Error{File: "unlock", Msg: "unknown arguments", Hint: "unlock takes no arguments, or: mount NEWROOT, or: needs, or: guard"})
	os.Exit(exitBadConfig)
}

// work is what the worker does.
func work(ctx context.Context, args []string) error {
	cmdline, err := kernelCommandLine()
	if err != nil {
		complain(err)
		return err
	}
	if len(args) == 0 {
		return unlockDisks(ctx, cmdline)
	}
	return unlockFiles(ctx, cmdline, args[1])
}

// supervise has a worker do the work, reboots if it says so, and returns the exit
// status.
func supervise(args []string) int {
	status, err := runWorker(args)
	if err != nil {
		complain(err)
	}
	if status != exitReboot {
		return status
	}
	reboot()
	return exitLocked
}

// unlockDisks is the part of a boot before the root file system is mounted.
func unlockDisks(ctx context.Context, cmdline string) error {
	s, ctx, err := begin(ctx, cmdline, nil)
	if err == nil {
		err = s.disks(ctx)
	}
	s.end(err)
	return s.finish(err)
}

// unlockFiles is the part after it.
func unlockFiles(ctx context.Context, cmdline, newroot string) error {
	before, err := status.Read(status.DefaultFile)
	if err != nil {
		complain(err)
		return err
	}
	s, ctx, err := begin(ctx, cmdline, before)
	if err == nil {
		err = s.files(ctx, newroot)
	}
	if err == nil {
		err = s.mount(newroot)
	}
	s.end(err)
	return s.finish(err)
}

// bootMachine is the whole boot of the standalone image. It does not return.
func bootMachine() {
	if err := initd.Start(); err != nil {
		complain(err) // what is missing will be missed below, or not
	}
	cmdline, err := kernelCommandLine()
	if err != nil {
		complain(err)
	}
	status := supervise(nil)
	if status == 0 {
		if err := initd.MountRoot(context.Background(), &block.Finder{}, cmdline); err != nil {
			complain(err)
			status = exitLocked
		}
	}
	if status == 0 {
		status = supervise([]string{"mount", initd.Root})
	}
	if status == 0 {
		complain(initd.SwitchRoot(cmdline)) // it returns only on failure
		status = exitLocked
	}
	logf(levelError, "exit status %d", status)
	initd.Halt(cmdline)
}

func kernelCommandLine() (string, error) {
	data, err := os.ReadFile("/proc/cmdline")
	return string(data), err
}

func exitStatus(err error) int {
	var bad *config.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		return exitBadConfig
	case errors.Is(err, errReboot):
		return exitReboot
	}
	return exitLocked
}
