package block

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// List returns all block devices that have a medium, sorted by name, partitions
// after their disks. Devices the kernel hides (the paths below an NVMe multipath
// device) are left out, and so are those that vanish while they are read.
func (f *Finder) List() ([]Disk, error) {
	dir := filepath.Join(f.sys(), "class/block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing block devices: %w", err)
	}
	var disks []Disk
	inUse := map[string]bool{} // disks with partitions
	for _, e := range entries {
		d, err := f.disk(filepath.Join(dir, e.Name()))
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading about block device %s: %w", e.Name(), err)
		}
		if d.Size == 0 {
			continue
		}
		if d.Parent != "" {
			inUse[d.Parent] = true
		}
		disks = append(disks, d)
	}
	for i := range disks {
		disks[i].InUse = disks[i].InUse || inUse[disks[i].Name]
	}
	sort.Slice(disks, func(i, j int) bool {
		a, b := &disks[i], &disks[j]
		return cmp.Or(naturalCompare(cmp.Or(a.Parent, a.Name), cmp.Or(b.Parent, b.Name)),
			naturalCompare(a.Name, b.Name)) < 0
	})
	return disks, nil
}

// disk reads what sysfs and an NVMe controller tell about one device.
func (f *Finder) disk(dir string) (d Disk, err error) {
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		return d, err
	}
	d.Name = deviceName(dir)
	d.Path = filepath.Join(f.dev(), d.Name)
	number, err := attr(dir, "dev") // absent for hidden devices
	if err != nil {
		return d, err
	}
	major, minor, _ := strings.Cut(number, ":")
	for _, n := range []struct {
		text string
		to   *uint32
	}{{major, &d.Major}, {minor, &d.Minor}} {
		v, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return d, fmt.Errorf("device number %q: %w", number, err)
		}
		*n.to = uint32(v)
	}
	sectors, err := intAttr(dir, "size") // always in units of 512 bytes
	if err != nil {
		return d, err
	}
	d.Size = sectors * 512
	ro, err := intAttr(dir, "ro")
	if err != nil {
		return d, err
	}
	d.ReadOnly = ro != 0
	holders, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err != nil {
		return d, err
	}
	d.InUse = len(holders) > 0

	whole := dir
	if has(dir, "partition") {
		whole = filepath.Dir(dir)
		d.Parent = deviceName(whole)
		d.PartUUID = f.partUUID(dir, whole)
	}
	sectorSize, err := intAttr(whole, "queue/logical_block_size")
	if err != nil {
		return d, err
	}
	d.SectorSize = int(sectorSize)
	if d.Parent == "" && d.Size > 0 {
		d.DM, _ = attr(dir, "dm/name")
		d.Model, _ = attr(dir, "device/model")
		d.Serial, _ = attr(dir, "device/serial")
		if d.Serial == "" {
			d.Serial, _ = attr(dir, "serial") // virtio-blk
		}
		var vendor []byte
		if strings.HasPrefix(d.Name, "nvme") {
			// Without vendor bytes, model and serial still decide.
			vendor, _ = f.identifyFunc()(d.Path)
		}
		d.Kind, d.Attach = classify(d.Model, d.Serial, vendor)
	}
	return d, nil
}

// deviceName returns the name below /dev; sysfs has "!" for a slash in it.
func deviceName(dir string) string { return strings.ReplaceAll(filepath.Base(dir), "!", "/") }

// isGone tells that a device disappeared while it was looked at.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}

func (f *Finder) sys() string { return cmp.Or(f.Sys, "/sys") }
func (f *Finder) dev() string { return cmp.Or(f.Dev, "/dev") }

// attr returns a sysfs attribute without the blanks around it.
func attr(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	return strings.Trim(string(b), " \n\x00"), err
}

func intAttr(dir, name string) (int64, error) {
	s, err := attr(dir, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("attribute %s: %w", name, err)
	}
	return n, nil
}

func has(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// naturalCompare orders names so that nvme2n1 comes before nvme10n1.
func naturalCompare(a, b string) int {
	for a != "" && b != "" {
		na, nb := digits(a), digits(b)
		if na > 0 && nb > 0 {
			x, y := strings.TrimLeft(a[:na], "0"), strings.TrimLeft(b[:nb], "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y)); c != 0 {
				return c
			}
			a, b = a[na:], b[nb:]
			continue
		}
		if a[0] != b[0] {
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	return cmp.Compare(len(a), len(b))
}

// digits returns how many digits s begins with.
func digits(s string) int {
	return len(s) - len(strings.TrimLeft(s, "0123456789"))
}
