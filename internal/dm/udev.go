package dm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// udev flags of a resume, linux/dm-ioctl.h and libdevmapper.h; they travel in the
// upper half of event_nr.
const (
	udevDisableSubsystemRules = 0x02
	udevDisableDiskRules      = 0x04
	udevDisableOtherRules     = 0x08
	udevPrimarySource         = 0x40
)

func udevFlags(o Options) uint32 {
	if o.Internal {
		return udevPrimarySource | udevDisableSubsystemRules | udevDisableDiskRules | udevDisableOtherRules
	}
	return udevPrimarySource
}

func udevEntry(d Device) string { return fmt.Sprintf("/run/udev/data/b%d:%d", d.Major, d.Minor) }

// announce makes /dev/mapper/NAME, as a link as udev does: a node in its place
// would keep a later udevd from linking. Where no udevd runs yet, it leaves the
// database entry by which the dm rules know, at the real root's coldplug, that
// the mapping is complete; without it they hide it and mount units time out.
func announce(d Device) error {
	target := filepath.Join("..", filepath.Base(d.Node()))
	if err := os.Symlink(target, d.Path()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("linking %s: %w", d.Path(), err)
	}
	if listening("/run/udev/control") {
		return nil
	}
	entry := udevEntry(d)
	if err := os.MkdirAll(filepath.Dir(entry), 0o755); err != nil {
		return fmt.Errorf("preparing udev's view of %s: %w", d.Path(), err)
	}
	if err := os.WriteFile(entry, []byte("E:DM_UDEV_PRIMARY_SOURCE_FLAG=1\n"), 0o644); err != nil {
		return fmt.Errorf("preparing udev's view of %s: %w", d.Path(), err)
	}
	return nil
}

// listening reports whether a udevd is behind its control socket: one that was
// stopped leaves the socket's file.
func listening(socket string) bool {
	conn, err := net.DialTimeout("unixpacket", socket, time.Second)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func retract(d Device) error {
	var errs []error
	for _, f := range []string{d.Path(), udevEntry(d)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
