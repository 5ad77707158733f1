// Command unlock opens, and where allowed formats, the LUKS volumes that
// /etc/unlock.toml describes, with passphrases that AWS KMS decrypts for the
// instance's role. It runs once, in the initramfs, before the root pivot.
//
//	unlock                 find, unlock, map
//	unlock mount NEWROOT   mount what was mapped below the new root
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
	"unlock/internal/unlock"
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
	err := run(context.Background(), os.Args[1:])
	if err != nil {
		complain(err)
	}
	os.Exit(exitStatus(err))
}

func run(ctx context.Context, args []string) error {
	cmdline, err := kernelCommandLine()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 0:
		return unlockVolumes(ctx, cmdline)
	case len(args) == 2 && args[0] == "mount":
		return mountVolumes(cmdline, args[1])
	}
	return &config.Error{File: "unlock", Msg: "unknown arguments", Hint: "unlock takes no arguments, or: mount NEWROOT"}
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
	complain(err)
	logf(levelError, "exit status %d", exitStatus(err))
	initd.Halt(cmdline)
}

// bootSystem returns only if the real system could not be started.
func bootSystem(ctx context.Context, cmdline string) error {
	if err := unlockVolumes(ctx, cmdline); err != nil {
		return err
	}
	if err := initd.MountRoot(ctx, &block.Finder{}, cmdline); err != nil {
		return err
	}
	if err := mountVolumes(cmdline, initd.Root); err != nil {
		return err
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

// mountVolumes mounts below newroot what unlockVolumes has mapped.
func mountVolumes(cmdline, newroot string) error {
	cfg, err := config.Load(config.DefaultFile, cmdline)
	if err != nil || cfg.Skip {
		return err
	}
	report, err := status.Read(status.DefaultFile)
	if err != nil {
		return err
	}
	return errors.Join(
		unlock.Mount(cfg, report, newroot, func(err error) { complain(err) }),
		status.Write(status.DefaultFile, report),
	)
}
