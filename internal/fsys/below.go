package fsys

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// maxLinks is how many symbolic links one path may lead over, as for the kernel.
const maxLinks = 40

// below walks below a root as the root's own system would: absolute links count from
// the root, and nothing leads out of it. The kernel does so itself since Linux 5.6
// (openat2), which is too new for RHEL 8. Nobody else may change the tree meanwhile.
type below struct {
	root string
	dirs []int // opened (O_PATH), from the root on
	make bool  // missing directories
}

// openDir opens dir below root, making what is missing of it if that is asked for. A
// root that is mounted read-only is made writable for that moment.
func openDir(root, dir string, make bool) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", root, err)
	}
	b := &below{root: root, dirs: []int{fd}, make: make}
	defer b.close()
	if err := b.walk(dir); err != nil {
		return -1, &os.PathError{Op: "opening", Path: dir, Err: err}
	}
	last := len(b.dirs) - 1
	fd, b.dirs = b.dirs[last], b.dirs[:last]
	return fd, nil
}

// Mounted reports whether something is mounted on dir below root. Its device does not tell:
// a directory of a file system may be mounted on another of the same.
func Mounted(root, dir string) bool {
	at, err := openDir(root, dir, false)
	if err != nil {
		return false
	}
	defer unix.Close(at)
	above, err := unix.Openat(at, "..", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(above)
	here, over := mountID(at), mountID(above)
	return here != "" && over != "" && here != over
}

// mountID returns the kernel's number of the mount in which a file lies (proc(5), fdinfo).
func mountID(fd int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	for line := range strings.Lines(string(data)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(id)
		}
	}
	return ""
}

func (b *below) close() {
	for _, fd := range b.dirs {
		unix.Close(fd)
	}
}

func (b *below) walk(path string) error {
	names := strings.Split(path, "/")
	for links := 0; len(names) > 0; {
		name := names[0]
		names = names[1:]
		at := b.dirs[len(b.dirs)-1]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(b.dirs) > 1 {
				unix.Close(at)
				b.dirs = b.dirs[:len(b.dirs)-1]
			}
			continue
		}
		fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) && b.make {
			if err = b.mkdir(at, name); err == nil {
				fd, err = unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			}
		}
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			b.dirs = append(b.dirs, fd)
			continue
		case unix.S_IFLNK:
			target := make([]byte, unix.PathMax)
			n, err := unix.Readlinkat(fd, "", target)
			unix.Close(fd)
			if links++; links > maxLinks {
				err = unix.ELOOP
			}
			if err != nil {
				return err
			}
			if target[0] == '/' {
				for _, fd := range b.dirs[1:] {
					unix.Close(fd)
				}
				b.dirs = b.dirs[:1]
			}
			names = append(strings.Split(string(target[:n]), "/"), names...)
		default:
			unix.Close(fd)
			return unix.ENOTDIR
		}
	}
	return nil
}

func (b *below) mkdir(at int, name string) error {
	err := unix.Mkdirat(at, name, 0o755)
	if errors.Is(err, unix.EROFS) {
		err = writable(b.root, func() error { return unix.Mkdirat(at, name, 0o755) })
	}
	if err == nil {
		setLabel(filepath.Join(fdPath(at), name), labelOf(fdPath(at)))
	}
	return err
}

// writable calls f while the file system mounted at root may be written to, which it
// may not before. It stays so if f leaves a file open for writing.
func writable(root string, f func() error) error {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return err
	}
	flags := uintptr(st.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_SYNCHRONOUS | unix.MS_NOATIME | unix.MS_NODIRATIME)
	if st.Flags&unix.ST_RELATIME != 0 {
		flags |= unix.MS_RELATIME
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|flags, ""); err != nil {
		return hint.With(fmt.Errorf("%w, and making it writable for a moment: %w", unix.EROFS, err), "make the directory in the image's root file system, or boot with rw on the kernel command line")
	}
	err := f()
	_ = unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY|flags, "")
	return err
}

// selinux is the attribute that holds SELinux's label. While the policy is not loaded,
// in an initramfs, the kernel gives new files none, and confined services of the real
// system could not use them. They get their directory's, as from most policies.
const selinux = "security.selinux"

// labelOf returns a file's label, or nil.
func labelOf(file string) []byte {
	label := make([]byte, 256)
	n, err := unix.Getxattr(file, selinux, label)
	if err != nil || n == 0 {
		return nil
	}
	return label[:n]
}

// setLabel labels a file that has no label.
func setLabel(file string, label []byte) {
	if label != nil {
		_ = unix.Setxattr(file, selinux, label, unix.XATTR_CREATE)
	}
}

func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }
