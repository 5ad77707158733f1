package initramfs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"

	"github.com/u-root/u-root/pkg/ldd"

	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/needs"
)

// addMkfs adds the programs for volumes that may be formatted, and those that look their
// file systems over, in /sbin.
func (o *Options) addMkfs(t *tree, n needs.List) error {
	for _, p := range n.Programs {
		if err := o.program(t, p.Name); err != nil {
			return fmt.Errorf("volume %q needs %s to make %s: %w", p.Volume.Name, p.Name, p.Volume.Filesystem, err)
		}
		if p.Name == "mke2fs" {
			if err := t.file("/etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644); err != nil {
				o.Note("mke2fs.conf is not on this system: " + err.Error())
			}
		}
	}
	for _, name := range n.Checkers {
		const unchecked = "file systems are mounted without being checked"
		switch err := o.program(t, name); {
		case errors.Is(err, exec.ErrNotFound):
			o.Note(name + " is not on this system: " + unchecked)
		case errors.Is(err, errForeign):
			o.Note(err.Error() + ": " + unchecked + "; " + hint.Of(err))
		case err != nil:
			return err
		}
	}
	return nil
}

// program copies a program of the host to /sbin, with its libraries where its
// interpreter expects them, unless Options.Files has it. One that is not there is
// exec.ErrNotFound, what unlock could not run errForeign.
func (o *Options) program(t *tree, name string) error {
	place := path.Join("/sbin", name)
	if t.has(place) {
		return nil
	}
	host, err := exec.LookPath(name)
	if err != nil { // users that are not root lack /sbin in their PATH
		if host = fsys.Find(name); host == "" {
			return err
		}
	}
	data, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	if err := o.suits(host, data); err != nil {
		return hint.With(err, fmt.Sprintf("give that of the image's system, and its libraries: --file TREE/sbin/%s:/sbin/%s", name, name))
	}
	t.content(place, 0o755, data)
	libs, err := ldd.FList(host)
	if err != nil {
		return fmt.Errorf("finding the libraries of %s: %w", host, err)
	}
	for _, lib := range libs {
		if lib == host {
			continue
		}
		if target, err := os.Readlink(lib); err == nil {
			t.symlink(lib, target)
		} else if err := t.file(lib, lib, 0o755); err != nil {
			return err
		}
	}
	return nil
}
