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
	"slices"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys/fsopt"
	"unlock/internal/hint"
)

// ErrNoTool: the image lacks the program that makes this file system.
var ErrNoTool = hint.New("not in the image", "rebuild the initramfs: it takes along the tools that the configuration needs")

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

// Make makes a file system of that type on device; arguments are those of its maker, as
// fsopt.Arguments returns them, by default those without any options.
func Make(ctx context.Context, device, fstype string, arguments ...string) error {
	name := fsopt.Tool(fstype)
	if name == "" {
		return fmt.Errorf("making a file system on %s: unknown type %q", device, fstype)
	}
	if len(arguments) == 0 {
		arguments = fsopt.Arguments(fstype, nil, fsopt.Stripe{})
	}
	tool := Find(name)
	if tool == "" {
		return fmt.Errorf("making a file system on %s: %s: %w", device, name, ErrNoTool)
	}
	cmd := exec.CommandContext(ctx, tool, append(slices.Clone(arguments), device)...)
	cmd.Env = []string{"PATH=" + searchPath}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a file system on %s: %s: %w: %s", device, name, err, lastLine(out))
	}
	return nil
}

func lastLine(out []byte) string {
	out = bytes.TrimSpace(out)
	return string(out[bytes.LastIndexByte(out, '\n')+1:])
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
	flags, data := fsopt.Split(options)
	label := labelOf(fdPath(fd))
	if err := unix.Mount(device, fdPath(fd), fstype, flags, data); err != nil {
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
