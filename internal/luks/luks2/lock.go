package luks2

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockDir = "/run/cryptsetup" // cryptsetup's, mode 0700
	lockFor = 10 * time.Second  // how long to wait for somebody else's lock
)

// lock takes cryptsetup's write lock on dev and, on a block device, also the flock
// that keeps udevd from probing what is half written. Plain files carry
// cryptsetup's lock themselves; other Devices have none.
func lock(dev Device) (unlock func(), err error) {
	f, ok := dev.(*os.File)
	if !ok {
		return func() {}, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	deadline := time.Now().Add(lockFor)
	release := func() {}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		if release, err = lockResource(unix.Major(st.Rdev), unix.Minor(st.Rdev), deadline); err != nil {
			return nil, err
		}
	}
	if err := flock(int(f.Fd()), deadline); err != nil {
		release()
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return func() {
		_ = unix.Flock(int(f.Fd()), unix.LOCK_UN)
		release()
	}, nil
}

// lockResource takes the lock file of a block device (cryptsetup,
// lib/utils_device_locking.c). Its name goes away with the last user, so that
// the file that was locked must be the one that still has the name.
func lockResource(major, minor uint32, deadline time.Time) (release func(), err error) {
	if err := os.MkdirAll(lockDir, 0o700); err != nil {
		return nil, fmt.Errorf("locking: %w", err)
	}
	path := fmt.Sprintf("%s/L_%d:%d", lockDir, major, minor)
	for {
		fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking: opening %s: %w", path, err)
		}
		if err := flock(fd, deadline); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		var locked, named unix.Stat_t
		if unix.Fstat(fd, &locked) == nil && unix.Stat(path, &named) == nil && locked.Ino == named.Ino && locked.Dev == named.Dev {
			return func() {
				// Still locked exclusively: nobody else uses the file that has the name.
				_ = unix.Unlink(path)
				unix.Close(fd)
			}, nil
		}
		unix.Close(fd)
	}
}

// flock takes an exclusive lock, waiting until deadline for others to let go.
func flock(fd int, deadline time.Time) error {
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another program has held the lock for %v", lockFor)
		}
		<-time.After(20 * time.Millisecond)
	}
}
