// Package block finds disks and reads what is on them. It tells EC2 instance
// store from EBS, waits for disks by kernel uevents, and judges contents as
// blank, LUKS, foreign or unreadable; it never writes.
package block

import (
	"context"
	"io"
)

// Kind of a disk.
type Kind int

const (
	KindOther         Kind = iota // any other block device, partitions and dm devices included
	KindInstanceStore             // NVMe model or vendor bytes of EC2 instance store, or serial AWS… (QEMU)
	KindEBS
)

// Disk is a block device. What was read once is kept; nothing here is a handle.
type Disk struct {
	Name       string // nvme1n1
	Path       string // /dev/nvme1n1
	Major      uint32
	Minor      uint32
	Size       int64 // bytes
	SectorSize int   // logical, bytes
	ReadOnly   bool
	Kind       Kind
	Model      string // trimmed
	Serial     string // trimmed
	Attach     string // vendor bytes: "sdf" for EBS; "ephemeral0" for instance store
	PartUUID   string // of a partition
	Parent     string // of a partition: its disk's name
	InUse      bool   // has holders (dm, md) or partitions
}

// Finder lists and awaits disks. The zero value looks at the running system.
type Finder struct {
	Sys string // "" means /sys
	Dev string // "" means /dev
}

// List returns all block devices that have a medium, sorted by name, partitions
// after their disks.
func (f *Finder) List() ([]Disk, error) { panic("stub") }

// Watch calls look at once and after each change among the block devices, until
// look returns true or ctx ends. settled tells look that the kernel has finished
// probing: no more disks will appear unless somebody attaches one.
func (f *Finder) Watch(ctx context.Context, look func(disks []Disk, settled bool) (done bool)) error {
	panic("stub")
}

// ContentKind is what is on a disk. The zero value is Unreadable.
type ContentKind int

const (
	Unreadable ContentKind = iota
	Blank                  // no signature known to blkid; first and last MiB zero
	LUKS                   // LUKS magic in any place where a header may be
	Foreign                // anything else
)

// Content is the verdict on a disk.
type Content struct {
	Kind  ContentKind
	What  string // for people: "ext4 file system \"data\"", "data at byte 4096", "reading byte 0: input/output error"
	Label string // of a file system or LUKS header
	UUID  string
}

// Probe reads what is on a device of size bytes.
func Probe(r io.ReaderAt, size int64) Content { panic("stub") }
