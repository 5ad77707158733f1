package fsys

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"unlock/internal/config"
	"unlock/internal/hint"
)

// Bind mounts a directory of the file system that is mounted on mount below root on
// b.Path below root. If there is no such directory yet, it is made, with owner, mode,
// times, extended attributes and so SELinux's label of what it covers, and, with b.Seed,
// with a copy of what is in there. It gets its name when all of it is on the disk: what an
// interrupted Bind has left is thrown away and made anew. alive is called as a copy goes on.
func Bind(root, mount string, b config.Bind, alive func()) error {
	fail := func(err error) error { return fmt.Errorf("binding %s: %w", b.Path, err) }
	covered, err := openDir(root, b.Path, true)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(covered)
	volume, err := openDir(root, mount, false)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(volume)
	from, err := openDir(fdPath(volume), b.From, false)
	if errors.Is(err, unix.ENOENT) {
		if err = provide(volume, covered, b, alive); err == nil {
			from, err = openDir(fdPath(volume), b.From, false)
		}
	}
	if err != nil {
		return fail(hint.Disk(err))
	}
	defer unix.Close(from)
	if err := unix.Mount(fdPath(from), fdPath(covered), "", unix.MS_BIND, ""); err != nil {
		return fail(err)
	}
	return nil
}

// provide makes the directory on the volume.
func provide(volume, covered int, b config.Bind, alive func()) error {
	parent, err := openDir(fdPath(volume), path.Dir(b.From), true)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	name := config.Unfinished + path.Base(b.From)
	if err := os.RemoveAll(filepath.Join(fdPath(parent), name)); err != nil {
		return fmt.Errorf("removing what an interrupted boot has left: %w", err)
	}
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return err
	}
	made, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(made)
	c := copying{top: made, alive: alive, links: map[uint64]string{}, buf: make([]byte, 1<<20)}
	if err := c.begin(covered); err != nil {
		return err
	}
	if b.Seed {
		err = c.directory(covered, made, "")
	}
	if err == nil {
		err = c.attributes(covered, parent, name, &c.from)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = hint.With(err, "the volume is smaller than what is to be copied: leave seed out, or remove what need not be there from the image")
	}
	if err == nil {
		err = unix.Syncfs(made)
	}
	if err == nil {
		err = unix.Renameat(parent, name, parent, path.Base(b.From))
	}
	if err == nil {
		err = unix.Syncfs(made)
	}
	return err
}

// Own gives the root of a file system that is mounted on mount below root an owner and a
// mode, unless something is in it already: then it is no longer new. owner is as in package
// config, its names as root's own system has them; "" and 0 leave what is there.
func Own(root, mount, owner string, mode uint32) error {
	fail := func(err error) error { return fmt.Errorf("giving %s its owner and mode: %w", mount, err) }
	at, err := openDir(root, mount, false)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(at)
	dir, err := os.Open(fdPath(at))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fail(err)
	}
	if slices.ContainsFunc(names, func(n string) bool { return n != "lost+found" }) {
		return nil
	}
	uid, gid, err := Owner(root, owner)
	if err == nil {
		err = unix.Fchown(int(dir.Fd()), uid, gid)
	}
	if err == nil && mode != 0 {
		err = unix.Fchmod(int(dir.Fd()), mode)
	}
	if err == nil {
		err = unix.Syncfs(int(dir.Fd()))
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// Owner returns the ids of USER, USER:GROUP or :GROUP, -1 for what is not said. Names are
// looked up in the files of root's /etc.
func Owner(root, owner string) (uid, gid int, err error) {
	user, group, _ := strings.Cut(owner, ":")
	if uid, err = id(root, "passwd", user); err == nil {
		gid, err = id(root, "group", group)
	}
	return uid, gid, err
}

// id looks a name up in a file of lines NAME:PASSWORD:ID:…
func id(root, file, name string) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	etc, err := openDir(root, "/etc", false)
	if err != nil {
		return -1, err
	}
	defer unix.Close(etc)
	data, err := os.ReadFile(filepath.Join(fdPath(etc), file))
	if err != nil {
		return -1, fmt.Errorf("looking up %q: %w", name, err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 && f[0] == name {
			if n, err := strconv.ParseUint(f[2], 10, 32); err == nil {
				return int(n), nil
			}
		}
	}
	return -1, hint.With(fmt.Errorf("%q is not in /etc/%s", name, file), "add it to the image, or write the number")
}
