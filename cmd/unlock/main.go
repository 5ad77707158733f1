// Command unlock opens, and where allowed formats, the LUKS volumes that
// /etc/unlock.toml describes, with passphrases that AWS KMS decrypts for the
// instance's role. It runs once, in the initramfs, before the root pivot.
//
//	unlock                 the volumes on disks
//	unlock mount NEWROOT   those in files of the new root, and all mounts
//	unlock needs           lists what an initramfs must contain, for its builders
//
// As process 1 of the standalone image it does both, and init's part around them.
//
// Exit status: 0 done or nothing to do; 1 a required volume stayed locked;
// 2 bad configuration.
package main

import (
	"context"
	"errors"
	"os"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/initd"
	"unlock/internal/status"
)

// version is set by the linker.
var version = "devel"

const (
	exitLocked    = 1
	exitBadConfig = 2
)

func main() {
	if os.Getpid() == 1 {
		bootMachine()
	}
	os.Exit(exitStatus(run(context.Background(), os.Args[1:])))
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "needs" {
		return printNeeds(os.Stdout, config.DefaultFile)
	}
	cmdline, err := kernelCommandLine()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return unlockDisks(ctx, cmdline)
	case len(args) == 2 && args[0] == "mount":
		return unlockFiles(ctx, cmdline, args[1])
	}
	return &config.Error{File: "unlock", Msg: "unknown arguments", Hint: "unlock takes no arguments, or: mount NEWROOT, or: needs"}
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
	if err == nil {
		err = bootSystem(context.Background(), cmdline)
	}
	logf(levelError, "exit status %d", exitStatus(err))
	initd.Halt(cmdline)
}

// bootSystem returns only if the real system could not be started.
func bootSystem(ctx context.Context, cmdline string) error {
	s, limited, err := begin(ctx, cmdline, nil)
	if err == nil {
		err = s.disks(limited)
	}
	if err == nil {
		err = initd.MountRoot(ctx, &block.Finder{}, cmdline)
	}
	if err == nil {
		err = s.files(limited, initd.Root)
	}
	if err == nil {
		err = s.mount(initd.Root)
	}
	s.end(err)
	if err != nil {
		return s.finish(err)
	}
	return initd.SwitchRoot(cmdline)
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
	}
	return exitLocked
}
