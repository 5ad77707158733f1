package initd

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"unlock/internal/config"
)

// SwitchRoot moves the kernel's file systems below Root, deletes the initramfs,
// and executes init= of the command line, else /sbin/init, with the arguments and
// the environment that the kernel gave. It returns only on failure.
//
// u-root's SwitchRoot logs each step, drops arguments and environment, and deletes
// before it knows that there is an init.
func SwitchRoot(cmdline string) error {
	init, ok := config.Setting(cmdline, "init")
	if !ok {
		init = "/sbin/init"
	}
	for _, m := range kernelMounts {
		if err := unix.Mount(m.dir, Root+m.dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving %s to the real root: %w", m.dir, err)
		}
	}
	if err := unix.Chdir(Root); err != nil {
		return fmt.Errorf("entering the real root: %w", err)
	}
	old, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("opening the initramfs: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the real root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing to the real root: %w", err)
	}
	// Only from here do absolute symbolic links lead to what init will see.
	if err := unix.Access(init, unix.X_OK); err != nil {
		return fmt.Errorf("starting %s of the real root: %w", init, err)
	}
	deleteInitramfs(old)
	return fmt.Errorf("starting %s of the real root: %w", init,
		unix.Exec(init, append([]string{init}, os.Args[1:]...), os.Environ()))
}

// deleteInitramfs frees the memory of the image, ciphertext files included. It
// deletes nothing unless dir is on the kernel's own memory file system: if this
// code were ever run from a disk, that disk stays whole.
func deleteInitramfs(dir *os.File) {
	defer dir.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil || fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err == nil {
		deleteBelow(dir, st.Dev)
	}
}

// deleteBelow empties dir without leaving the file system dev. What cannot be
// deleted stays: it costs memory only.
func deleteBelow(dir *os.File, dev uint64) {
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil { // not a directory
			_ = unix.Unlinkat(int(dir.Fd()), name, 0)
			continue
		}
		child := os.NewFile(uintptr(fd), name)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Dev == dev {
			deleteBelow(child, dev)
			_ = unix.Unlinkat(int(dir.Fd()), name, unix.AT_REMOVEDIR)
		}
		child.Close()
	}
}
