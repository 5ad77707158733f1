package fsys

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// copying copies what is in a directory, with owners, modes, times, extended attributes,
// hard links and holes. What is mounted below it is left out. Nobody else may change
// either side meanwhile.
type copying struct {
	from  unix.Stat_t
	top   int               // directory of the copy
	links map[uint64]string // files with several names: inode → first name below top
	alive func()
	buf   []byte
}

func (c *copying) begin(from int) error { return unix.Fstat(from, &c.from) }

// directory copies what is in the directory from to the directory to, which is at below top.
func (c *copying) directory(from, to int, at string) error {
	dir, err := os.Open(fdPath(from))
	if err != nil {
		return fmt.Errorf("copying /%s: %w", at, err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return fmt.Errorf("copying /%s: %w", at, err)
	}
	for _, name := range names {
		if err := c.entry(from, to, name, path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

func (c *copying) entry(from, to int, name, at string) error {
	fail := func(err error) error { return fmt.Errorf("copying /%s: %w", at, err) }
	fd, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fail(err)
	}
	c.alive()
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			if err := unix.Linkat(c.top, first, to, name, 0); err != nil {
				return fail(err)
			}
			return nil
		}
		c.links[st.Ino] = at
	}
	switch kind {
	case unix.S_IFDIR:
		err = c.subdirectory(fd, to, name, at, st.Dev == c.from.Dev)
	case unix.S_IFREG:
		err = c.file(fd, to, name, st.Size)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		var n int
		if n, err = unix.Readlinkat(fd, "", target); err == nil {
			err = unix.Symlinkat(string(target[:n]), to, name)
		}
	default:
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err == nil {
		err = c.attributes(fd, to, name, &st)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func (c *copying) subdirectory(from, to int, name, at string, inside bool) error {
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return err
	}
	if !inside {
		return nil
	}
	fd, err := unix.Openat(to, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return c.directory(from, fd, at)
}

// file copies what a file holds, and leaves holes where it has some.
func (c *copying) file(from, to int, name string, size int64) error {
	src, err := os.Open(fdPath(from))
	if err != nil {
		return err
	}
	defer src.Close()
	fd, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	defer dst.Close()
	for off := int64(0); off < size; {
		start, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole is left
		}
		end := size
		if err != nil { // the file system does not tell
			start = off
		} else if end, err = unix.Seek(int(src.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		for off = start; off < end; {
			n, err := src.ReadAt(c.buf[:min(int64(len(c.buf)), end-off)], off)
			if n == 0 {
				return fmt.Errorf("it has become shorter: %w", err)
			}
			if _, err := dst.WriteAt(c.buf[:n], off); err != nil {
				return err
			}
			off += int64(n)
			c.alive()
		}
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	return dst.Close()
}

// attributes gives the entry name of to what that opened as from has. The owner comes
// first: a change of it takes set-user-ID bits and capabilities away.
func (c *copying) attributes(from, to int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	fd, err := unix.Openat(to, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := copyXattrs(fdPath(from), fdPath(fd)); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyXattrs copies all that the target can have.
func copyXattrs(from, to string) error {
	list := make([]byte, 64<<10) // the most there can be (xattr(7)), and so for a value
	n, err := unix.Listxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(string(bytes.TrimRight(list[:n], "\x00")), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Getxattr(from, name, value)
		if err == nil {
			err = unix.Setxattr(to, name, value[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}
