package initramfs

import (
	"fmt"
	"os"
	"os/exec"
	"path"

	"github.com/u-root/u-root/pkg/ldd"

	"unlock/internal/fsys"
	"unlock/internal/needs"
)

// addMkfs adds the programs for volumes that may be formatted, and those that look their
// file systems over, in /sbin.
func (o *Options) addMkfs(t *tree, n needs.List) error {
	for _, p := range n.Programs {
		if err := t.program(p.Name); err != nil {
			return fmt.Errorf("volume %q needs %s to make %s: %w", p.Volume.Name, p.Name, p.Volume.Filesystem, err)
		}
		if p.Name == "mke2fs" {
			if err := t.file("/etc/mke2fs.conf", "/etc/mke2fs.conf", 0o644); err != nil {
				o.Note("mke2fs.conf is not on this system: " + err.Error())
			}
		}
	}
	for _, name := range n.Checkers {
		if fsys.Find(name) == "" {
			o.Note(name + " is not on this system: file systems are mounted without being checked")
		} else if err := t.program(name); err != nil {
			return err
		}
	}
	return nil
}

// program copies a program of the host to /sbin, with its libraries where its
// interpreter expects them.
func (t *tree) program(name string) error {
	host, err := exec.LookPath(name)
	if err != nil { // users that are not root lack /sbin in their PATH
		if host = fsys.Find(name); host == "" {
			return err
		}
	}
	if err := t.file(host, path.Join("/sbin", name), 0o755); err != nil {
		return err
	}
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
