package fsys

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// Loop is a loop device over a file.
type Loop struct {
	Path         string // /dev/loopN
	Major, Minor uint32
	Size         int64 // bytes
	InUse        bool  // something is mapped from it
	held         int   // file descriptor
}

// ErrNoFile: the file is not there, and was not to be made.
var ErrNoFile = errors.New("no such file")

// Attach puts a loop device over a file below root. It goes with this process, unless
// something else has it open by then, such as a mapping: a boot that fails leaves none. The file is opened without
// following links out of root. If it is not there and create is set, it is made
// with mode 0600 and size bytes, all of them allocated; a file that is shorter
// than size and holds nothing but zeros was left by an interrupted Attach, and
// is completed. A file that is there already keeps its size, and the loop device that it
// may have.
func Attach(root, file string, size int64, create bool) (Loop, error) {
	fail := func(err error) (Loop, error) { return Loop{}, fmt.Errorf("attaching %s: %w", file, err) }
	f, err := openBelow(root, file, create)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if create {
		if err := complete(f, size); err != nil {
			return fail(err)
		}
	}
	if l, ok, err := attached(f); err != nil {
		return fail(err)
	} else if ok {
		return l, nil
	}
	for { // another process may take the free device first
		l, err := attachFree(f, file)
		if !errors.Is(err, unix.EBUSY) {
			if err != nil {
				return fail(err)
			}
			return l, nil
		}
	}
}

// Detach gives the loop device back, which goes when nobody has it open any more.
func (l Loop) Detach() error {
	if err := unix.Close(l.held); err != nil {
		return fmt.Errorf("detaching %s: %w", l.Path, err)
	}
	return nil
}

func openBelow(root, file string, create bool) (*os.File, error) {
	dir, err := openDir(root, path.Dir(file), create)
	if errors.Is(err, unix.ENOENT) && !create {
		return nil, ErrNoFile
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	fd := -1
	open := func() (err error) {
		fd, err = openFile(dir, path.Base(file), create)
		return err
	}
	if err = open(); errors.Is(err, unix.EROFS) {
		err = writable(root, open)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), file)
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	return f, nil
}

// openFile opens a file for reading and writing, or makes it.
func openFile(dir int, name string, create bool) (int, error) {
	const flags = unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := unix.Openat(dir, name, flags, 0)
	switch {
	case !errors.Is(err, unix.ENOENT):
		return fd, err
	case !create:
		return -1, ErrNoFile
	}
	fd, err = unix.Openat(dir, name, flags|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err == nil {
		setLabel(fdPath(fd), labelOf(fdPath(dir)))
	}
	return fd, err
}

// complete allocates the whole of a new file, so that the volume in it can never
// run out of space.
func complete(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	if err := onlyZeros(f, info.Size()); err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return fmt.Errorf("allocating %d bytes: %w", size, err)
	}
	return f.Sync()
}

func onlyZeros(f *os.File, size int64) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(buf)) {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-off)], off)
		if err != nil {
			return err
		}
		for _, b := range buf[:n] {
			if b != 0 {
				return errors.New("it holds data and is shorter than the configured size")
			}
		}
	}
	return nil
}

// attachFree takes the kernel's next free loop device.
func attachFree(f *os.File, name string) (Loop, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return Loop{}, fmt.Errorf("the kernel has no loop devices: %w", err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return Loop{}, fmt.Errorf("asking for a free loop device: %w", err)
	}
	l := Loop{Path: fmt.Sprintf("/dev/loop%d", n)}
	dev, err := unix.Open(l.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Loop{}, fmt.Errorf("opening %s: %w", l.Path, err)
	}
	l.held = dev
	fail := func(err error) (Loop, error) {
		unix.Close(dev)
		return Loop{}, fmt.Errorf("configuring %s: %w", l.Path, err)
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
	if err := configure(dev, &config); err != nil {
		return fail(err)
	}
	if err := l.measure(); err != nil {
		return fail(err)
	}
	return l, nil
}

// configure puts a loop device over a file: in two steps where the kernel is older
// than 5.8 and knows no other way.
func configure(dev int, c *unix.LoopConfig) error {
	err := unix.IoctlLoopConfigure(dev, c)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTTY) {
		return err
	}
	if err := unix.IoctlSetInt(dev, unix.LOOP_SET_FD, int(c.Fd)); err != nil {
		return err
	}
	return unix.IoctlLoopSetStatus64(dev, &c.Info)
}
