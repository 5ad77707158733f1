package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// quiet is how long no event must have come for what never becomes complete (a
// controller without a driver or a namespace) no longer to be waited for.
const quiet = 3 * time.Second

// eventSource reports changes among devices.
type eventSource interface {
	// wait blocks until there was an event since the last call, or events were
	// lost, and takes all that are pending; else it returns ctx's error.
	wait(ctx context.Context) error
	Close() error
}

// Watch calls look at once and after each change among the block devices, until
// look returns true or ctx ends, whose cause it then returns. It listens to the
// kernel's uevents from before the first listing, so nothing is missed, and lists
// again after each burst of them. A change of what is on a disk is not a change
// among the block devices.
//
// settled tells look that the kernel has finished probing: no more disks will
// appear unless somebody attaches one. That is so once every controller of the
// kinds of disks that EC2 and QEMU have (NVMe, virtio-blk, Xen) has its driver and
// at least one disk; EC2's have just one. It stays so. An NVMe controller that is
// being initialised is waited for as long as ctx allows, because a set of disks
// must not be taken for complete while one of them is slow. A controller that has
// no driver, is dead or shows no disk is given up when no event has come for 3 s.
func (f *Finder) Watch(ctx context.Context, look func(disks []Disk, settled bool) (done bool)) error {
	subscribe := f.subscribe
	if subscribe == nil {
		subscribe = listenUevents
	}
	events, err := subscribe()
	if err != nil {
		return fmt.Errorf("listening for block devices: %w", err)
	}
	defer events.Close()

	var seen []Disk
	var settled, quietNow bool
	for first := true; ; first = false {
		// The controllers before the disks: what they had is then in the list.
		state := f.probing()
		disks, err := f.List()
		if err != nil {
			return err
		}
		now := settled || state == probed || quietNow && state == stuck
		if first || now != settled || !slices.Equal(disks, seen) {
			seen, settled = disks, now
			if look(slices.Clone(disks), settled) {
				return nil
			}
		}
		waitCtx, cancel := ctx, context.CancelFunc(func() {})
		if !settled {
			waitCtx, cancel = context.WithTimeout(ctx, quiet)
		}
		err = events.wait(waitCtx)
		cancel()
		quietNow = errors.Is(err, context.DeadlineExceeded)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for block devices: %w", context.Cause(ctx))
		case err != nil && !quietNow:
			return fmt.Errorf("listening for block devices: %w", err)
		}
	}
}

// probeState is how far the kernel is in finding disks.
type probeState int

const (
	working probeState = iota // a controller is being initialised
	stuck                     // some controller has no driver or no disk, perhaps for ever
	probed
)

// probing looks at the controllers: the functions on PCI and the devices on
// virtio and Xen that are there before any driver, because their buses are
// enumerated by the kernel itself.
func (f *Finder) probing() probeState {
	state := probed
	note := func(ok bool) {
		if !ok {
			state = min(state, stuck)
		}
	}
	for _, dir := range f.devices("pci") {
		class, _ := attr(dir, "class")
		vendor, _ := attr(dir, "vendor")
		device, _ := attr(dir, "device")
		switch {
		case strings.HasPrefix(class, "0x0108"): // non-volatile memory controller
			state = min(state, f.nvmeState(dir))
		case vendor == "0x1af4" && (device == "0x1001" || device == "0x1042"): // virtio-blk
			note(has(dir, "driver"))
		}
	}
	for _, dir := range f.devices("virtio") {
		if id, _ := attr(dir, "device"); id == "0x0002" { // virtio-blk
			note(slices.ContainsFunc(children(dir, "block"), f.isComplete))
		}
	}
	for _, dir := range f.devices("xen") {
		if strings.HasPrefix(filepath.Base(dir), "vbd-") {
			note(slices.ContainsFunc(children(dir, "block"), f.isComplete))
		}
	}
	return state
}

// nvmeState looks at the controllers of a PCI function.
func (f *Finder) nvmeState(dir string) probeState {
	controllers := children(dir, "nvme")
	if len(controllers) == 0 {
		return stuck // no driver yet, or none at all
	}
	for _, c := range controllers {
		ctrl := filepath.Join(dir, "nvme", c)
		switch state, _ := attr(ctrl, "state"); state {
		case "new", "resetting", "connecting":
			return working
		case "live":
		default:
			return stuck
		}
		if !slices.ContainsFunc(children(ctrl, ""), f.isNamespace) {
			return stuck
		}
	}
	return probed
}

// isNamespace tells whether a child of an NVMe controller is a namespace that
// is there as a block device. Below multipath, nvme0c1n2 belongs to nvme0n2.
func (f *Finder) isNamespace(name string) bool {
	rest, ok := strings.CutPrefix(name, "nvme")
	if !ok {
		return false
	}
	subsystem, namespace := rest[:digits(rest)], rest[digits(rest):]
	if path, ok := strings.CutPrefix(namespace, "c"); ok {
		namespace = path[digits(path):]
	}
	return strings.HasPrefix(namespace, "n") && f.isComplete("nvme"+subsystem+namespace)
}

// isComplete tells whether a block device has everything that List reads: the
// kernel adds its attributes one by one.
func (f *Finder) isComplete(name string) bool {
	dir := filepath.Join(f.sys(), "class/block", name)
	return has(dir, "dev") && has(dir, "holders") && has(dir, "queue/logical_block_size")
}

// devices returns the directories of a bus's devices; none if there is no such bus.
func (f *Finder) devices(bus string) []string {
	dir := filepath.Join(f.sys(), "bus", bus, "devices")
	var dirs []string
	for _, name := range children(dir, "") {
		dirs = append(dirs, filepath.Join(dir, name))
	}
	return dirs
}

func children(dir, name string) []string {
	entries, _ := os.ReadDir(filepath.Join(dir, name))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
