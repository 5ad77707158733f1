package main

import (
	"os"
	"os/exec"

	"unlock/internal/fsys"
)

// loadModules loads those that are asked for by no device: device-mapper and loop. Where
// that fails, mapping a volume will say so.
func loadModules() error {
	for _, module := range []string{"device-mapper", "loop-control"} { // the nodes below /dev may be there before
		if _, err := os.Stat("/sys/class/misc/" + module); err != nil {
			return tool("modprobe", "-qa", "dm-mod", "loop")
		}
	}
	return nil
}

// settleDevices is what a distribution's initramfs needs before disks are decided about.
func settleDevices(n *noted) {
	_ = n.note("modules", loadModules)
	_ = n.note("udev", settle)
}

// settle waits until udev has dealt with what the kernel has found by now. Drivers that
// are still being loaded would make disks look absent.
func settle() error {
	if _, err := os.Stat("/run/udev/control"); err != nil {
		return nil // it does not run
	}
	return tool("udevadm", "settle", "--timeout=30")
}

// tool runs a program of the image, if it is there.
func tool(name string, args ...string) error {
	program := fsys.Find(name)
	if program == "" {
		return nil
	}
	return exec.Command(program, args...).Run()
}
