package dm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Nodes is a directory of this program's own, in which device nodes can be opened by
// a process that is confined to the disks it knew before the mapping was there.
const Nodes = "/dev/unlock"

// WithNode calls use with the path of a device node that only exists meanwhile.
func (d Device) WithNode(use func(node string) error) (err error) {
	node := filepath.Join(Nodes, d.Name)
	err = errors.Join(os.MkdirAll(Nodes, 0o700), unix.Mknod(node, unix.S_IFBLK|0o600, int(unix.Mkdev(d.Major, d.Minor))))
	if err != nil {
		return fmt.Errorf("making node %s: %w", node, err)
	}
	defer func() { err = errors.Join(err, os.Remove(node)) }()
	return use(node)
}
