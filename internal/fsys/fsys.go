// Package fsys makes file systems with the image's own tools and mounts them
// below the new root. It decides nothing: whether a device may be written to is
// known by its callers.
package fsys

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// makers are the tools and their options: quiet, over what a broken-off earlier
// run may have left (-F, -f), and without discarding, as instance store arrives
// trimmed and a discard of terabytes would hold up the boot.
var makers = map[string][]string{
	"ext4":  {"mke2fs", "-t", "ext4", "-q", "-F", "-E", "nodiscard"},
	"xfs":   {"mkfs.xfs", "-q", "-f", "-K"},
	"btrfs": {"mkfs.btrfs", "-q", "-f", "-K"},
	"swap":  {"mkswap", "-q"},
}

// ErrNoTool: the image lacks the program that makes this file system.
var ErrNoTool = hint.New("not in the image", "rebuild the initramfs: it takes along the tools that the configuration needs")

// Tool returns the program that makes a file system of that type, which the
// image has to contain.
func Tool(fstype string) string {
	if m := makers[fstype]; m != nil {
		return m[0]
	}
	return ""
}

// searchPath is where programs are looked for: neither an initramfs nor who builds
// one need have them all in PATH.
const searchPath = "/usr/sbin:/usr/bin:/sbin:/bin"

// Find returns the program of that name in the first of dirs that has it, by
// default the system's own directories; "" if none has.
func Find(name string, dirs ...string) string {
	if len(dirs) == 0 {
		dirs = filepath.SplitList(searchPath)
	}
	for _, dir := range dirs {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
			return file
		}
	}
	return ""
}

// Make makes a file system of that type on device.
func Make(ctx context.Context, device, fstype string) error {
	m := makers[fstype]
	if m == nil {
		return fmt.Errorf("making a file system on %s: unknown type %q", device, fstype)
	}
	tool := Find(m[0])
	if tool == "" {
		return fmt.Errorf("making a file system on %s: %s: %w", device, m[0], ErrNoTool)
	}
	cmd := exec.CommandContext(ctx, tool, append(m[1:len(m):len(m)], device)...)
	cmd.Env = []string{"PATH=" + searchPath}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a file system on %s: %s: %w: %s", device, m[0], err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	out = bytes.TrimSpace(out)
	return string(out[bytes.LastIndexByte(out, '\n')+1:])
}

// mountFlags are the options of mount(8) that are not the file system's own.
var mountFlags = map[string]uintptr{
	"defaults": 0, "rw": 0, "ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
	"noatime": unix.MS_NOATIME, "relatime": unix.MS_RELATIME, "nodiratime": unix.MS_NODIRATIME, "lazytime": unix.MS_LAZYTIME,
	"sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
}

// Mount mounts device on dir below root, an absolute path as root's system sees
// it: symbolic links in it are followed, but never out of root. Missing directories
// are made. options are those of fstab(5).
func Mount(device, root, dir, fstype, options string) error {
	fail := func(err error) error { return fmt.Errorf("mounting %s on %s: %w", device, dir, err) }
	fd, err := openDir(root, dir, true)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var flags uintptr
	var data []string
	for _, o := range strings.Split(options, ",") {
		if f, ok := mountFlags[o]; ok {
			flags |= f
		} else if o != "" {
			data = append(data, o)
		}
	}
	label := labelOf(fdPath(fd))
	if err := unix.Mount(device, fdPath(fd), fstype, flags, strings.Join(data, ",")); err != nil {
		return fail(hint.Disk(err))
	}
	if top, err := openDir(root, dir, false); err == nil {
		setLabel(fdPath(top), label) // unless it has one, or is read-only
		unix.Close(top)
	}
	return nil
}

// Cover lays an empty read-only file system over dir below root.
func Cover(root, dir string) error {
	if err := Mount("unlock-missing", root, dir, "tmpfs", "ro,nosuid,nodev,noexec,mode=0555,nr_inodes=1"); err != nil {
		return fmt.Errorf("covering a missing volume's place: %w", err)
	}
	return nil
}
