package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// machine has the commands that need the machine itself: its disks, its kernel.
type machine struct {
	Enroll    enrollCmd    `cmd:"" help:"Add a key to a LUKS2 volume, or remove one."`
	Recover   recoverCmd   `cmd:"" help:"Open a volume by hand."`
	Open      openCmd      `cmd:"" help:"Open a volume of the configuration and mount it, as a boot does."`
	Close     closeCmd     `cmd:"" help:"Unmount a volume of the configuration and close it."`
	Grow      growCmd      `cmd:"" help:"Have an open volume take the room that its disk has got."`
	Join      joinCmd      `cmd:"" help:"Have a disk take part in an open mirror that lacks one."`
	List      listCmd      `cmd:"" help:"Show which keys open volumes."`
	Doctor    doctorCmd    `cmd:"" help:"Look for what would make the next boot fail."`
	Status    statusCmd    `cmd:"" help:"Tell what the last boot did, and what is open now."`
	Initramfs initramfsCmd `cmd:"" help:"Build the standalone initramfs."`
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
