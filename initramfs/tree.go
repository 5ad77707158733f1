package initramfs

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/u-root/u-root/pkg/cpio"
)

// tree is the content of the image by absolute path. The first to take a path keeps it.
type tree struct {
	records map[string]cpio.Record
}

func newTree() *tree { return &tree{records: map[string]cpio.Record{}} }

func (t *tree) has(name string) bool { _, ok := t.records[name]; return ok }

// add places r at an absolute path and makes its parents, which the kernel does not.
func (t *tree) add(name string, r cpio.Record) {
	if t.has(name) || name == "/" {
		return
	}
	t.directory(path.Dir(name))
	r.Name = name
	t.records[name] = cpio.MakeReproducible(r)
}

func (t *tree) directory(name string) { t.add(name, cpio.Directory("", 0o755)) }

func (t *tree) device(name string, perm, major, minor uint64) {
	t.add(name, cpio.CharDev("", perm, major, minor))
}

func (t *tree) symlink(name, target string) { t.add(name, cpio.Symlink("", target)) }

func (t *tree) content(name string, perm uint64, data []byte) {
	t.add(name, cpio.StaticFile("", string(data), perm))
}

// file copies a file of the host, following symbolic links.
func (t *tree) file(host, name string, perm uint64) error {
	data, err := os.ReadFile(host)
	if err != nil {
		return fmt.Errorf("adding %s: %w", name, err)
	}
	t.content(name, perm, data)
	return nil
}

// write writes the archive in the order of names, so that parents come first.
func (t *tree) write(w io.Writer) error {
	rw := cpio.Newc.Writer(w)
	for _, name := range slices.Sorted(maps.Keys(t.records)) {
		if err := rw.WriteRecord(t.records[name]); err != nil {
			return fmt.Errorf("writing %s to the image: %w", name, err)
		}
	}
	if err := cpio.WriteTrailer(rw); err != nil {
		return fmt.Errorf("ending the image: %w", err)
	}
	return nil
}
