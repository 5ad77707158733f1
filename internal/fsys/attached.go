package fsys

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attached returns the loop device that is over the whole of a file already, from an
// earlier try or a volume that is open; false if there is none.
func attached(f *os.File) (Loop, bool, error) {
	var file unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &file); err != nil {
		return Loop{}, false, err
	}
	devices, err := os.ReadDir("/sys/block")
	if err != nil {
		return Loop{}, false, err
	}
	for _, d := range devices {
		device := filepath.Join("/sys/block", d.Name())
		path, err := os.ReadFile(filepath.Join(device, "loop/backing_file")) // of loop devices that have a file
		var over unix.Stat_t
		if err != nil || unix.Stat(strings.TrimSuffix(string(path), "\n"), &over) != nil || over.Ino != file.Ino || over.Dev != file.Dev {
			continue
		}
		l := Loop{Path: "/dev/" + d.Name()}
		if l.held, err = unix.Open(l.Path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			continue // it cannot be told whose it is
		}
		status, err := unix.IoctlLoopGetStatus64(l.held)
		if err == nil && status.Inode == file.Ino && unix.Major(status.Device) == unix.Major(file.Dev) && unix.Minor(status.Device) == unix.Minor(file.Dev) &&
			status.Offset == 0 && status.Sizelimit == 0 {
			holders, herr := os.ReadDir(filepath.Join(device, "holders"))
			if errors.Is(herr, fs.ErrNotExist) {
				herr = nil
			}
			l.InUse = len(holders) > 0
			return l, true, errors.Join(herr, l.measure())
		}
		unix.Close(l.held)
	}
	return Loop{}, false, nil
}

// measure fills in number and size.
func (l *Loop) measure() error {
	var st unix.Stat_t
	if err := unix.Fstat(l.held, &st); err != nil {
		return err
	}
	l.Major, l.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	var err error
	l.Size, err = unix.Seek(l.held, 0, unix.SEEK_END)
	return err
}
