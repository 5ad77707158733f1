// Package confine takes from the process what it has no use for, for good and for
// its children too: Syscalls by seccomp (seccomp(2)), Devices by Landlock
// (landlock(7)). A kernel without either is ErrUnsupported; the caller decides what
// that means.
//
// It limits what a mistake or a hostile answer from the network can reach. It is no
// sandbox for arbitrary code: device-mapper, which the process needs, can map any
// disk.
package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported: the kernel was built or booted without it.
var ErrUnsupported = errors.New("the kernel does not support it")

// useful lists what a program has to open below /dev besides its disks.
var useful = []string{
	"console", "kmsg", "null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", // anybody's
	"mapper/control", "btrfs-control", // device-mapper, mkfs.btrfs
}

// access is what is forbidden unless a rule allows it.
const access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR

// Devices forbids opening devices other than those given, which exist, and making
// device nodes anywhere but in nodes, a directory below /dev that exists. Other
// files stay as they were, but nothing can be mounted any more.
func Devices(devices []string, nodes string) error {
	attr := unix.LandlockRulesetAttr{Access_fs: access}
	// Only the first field: the others came with later kernels.
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Access_fs), 0)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return fmt.Errorf("confining to devices: %w", ErrUnsupported)
	}
	if errno != 0 {
		return fmt.Errorf("confining to devices: %w", errno)
	}
	defer unix.Close(int(fd))
	const open = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	top, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("confining to devices: %w", err)
	}
	for _, e := range top {
		if e.Name() != "dev" && e.Type() != os.ModeSymlink {
			err = errors.Join(err, allow(int(fd), "/"+e.Name(), open))
		}
	}
	for _, name := range useful {
		err = errors.Join(err, allow(int(fd), filepath.Join("/dev", name), open))
	}
	for _, d := range devices {
		err = errors.Join(err, allow(int(fd), d, open))
	}
	err = errors.Join(err, allow(int(fd), nodes, open|unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK))
	if err == nil {
		if _, _, errno = syscall.AllThreadsSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
			err = errno
		}
	}
	if err != nil {
		return fmt.Errorf("confining to devices: %w", err)
	}
	return nil
}

// allow adds a rule for a file, or all below a directory. What does not exist, or
// cannot hold files, needs none.
func allow(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	runtime.KeepAlive(&rule)
	if errno != 0 {
		return &os.PathError{Op: "allow", Path: path, Err: errno}
	}
	return nil
}
