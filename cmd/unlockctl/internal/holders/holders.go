// Package holders says who keeps a block device, or what is mounted from it, busy: the
// kernel says no more than that somebody does. It looks where lsblk, lsof and swapon do:
// sysfs, /proc/PID, /proc/swaps.
package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Device is a block device.
type Device struct {
	Path         string // as it is mounted
	Major, Minor uint32
}

func (d Device) number() uint64 { return unix.Mkdev(d.Major, d.Minor) }

// Mapped returns what else the kernel has made of a device: mappings, arrays, swap.
func Mapped(d Device) []string {
	var found []string
	names, _ := filepath.Glob(fmt.Sprintf("/sys/dev/block/%d:%d/holders/*", d.Major, d.Minor))
	for _, name := range names {
		label := filepath.Base(name)
		if mapping, err := os.ReadFile(filepath.Join(name, "dm/name")); err == nil {
			label = "mapping " + strings.TrimSpace(string(mapping))
		}
		found = append(found, label)
	}
	swaps, _ := os.ReadFile("/proc/swaps")
	for line := range strings.Lines(string(swaps)) {
		if file, _, _ := strings.Cut(line, " "); d.is(file) {
			found = append(found, "swap")
		}
	}
	return found
}

// is reports whether a file is the device.
func (d Device) is(file string) bool {
	var st unix.Stat_t
	return unix.Stat(file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == d.number()
}

// Processes returns those that have a device open, or something on the file systems
// mounted from it at dirs: files, working directories, programs.
func Processes(d Device, dirs []string) []string {
	on := map[uint64]bool{} // numbers of the file systems, which are not always the device's
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil {
			on[st.Dev] = true
		}
	}
	return each(func(dir string) bool { return holds(dir, d, on) })
}

// Elsewhere returns the processes that see other mounts than this one, with the device
// among them: containers, and services that were cut off from what is unmounted later.
func Elsewhere(d Device) []string {
	own, _ := os.Readlink("/proc/self/ns/mnt")
	return each(func(dir string) bool {
		space, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
		return err == nil && space != own && mounts(dir, d)
	})
}

// each names the processes for which what is true, whose directory in /proc it is given.
func each(what func(dir string) bool) []string {
	var found []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		if what(dir) {
			name, _ := os.ReadFile(filepath.Join(dir, "comm"))
			found = append(found, fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(name))))
		}
	}
	return found
}

// holds reports whether a process has something of it.
func holds(dir string, d Device, on map[uint64]bool) bool {
	links, _ := filepath.Glob(filepath.Join(dir, "fd/*"))
	for _, link := range append(links, filepath.Join(dir, "cwd"), filepath.Join(dir, "root"), filepath.Join(dir, "exe")) {
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && (on[st.Dev] || st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == d.number()) {
			return true
		}
	}
	maps, _ := os.ReadFile(filepath.Join(dir, "maps"))
	for line := range strings.Lines(string(maps)) {
		var major, minor uint32
		if fields := strings.Fields(line); len(fields) > 4 {
			if n, _ := fmt.Sscanf(fields[3], "%x:%x", &major, &minor); n == 2 && on[unix.Mkdev(major, minor)] {
				return true
			}
		}
	}
	return false
}

// mounts reports whether a process sees the device mounted.
func mounts(dir string, d Device) bool {
	info, _ := os.ReadFile(filepath.Join(dir, "mountinfo"))
	for line := range strings.Lines(string(info)) {
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) > 2 && left[2] == fmt.Sprintf("%d:%d", d.Major, d.Minor) || len(right) > 1 && right[1] == d.Path {
			return true
		}
	}
	return false
}

// most are as many as a message names.
const most = 8

// List joins names for a message.
func List(names []string) string {
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}
