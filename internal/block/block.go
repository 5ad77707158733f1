// Package block finds disks and reads what is on them. It tells EC2 instance
// store from EBS, waits for disks by kernel uevents, and judges contents as
// blank, LUKS, begun, foreign or unreadable; it never writes, and nobody else judges.
// Whether a LUKS header is valid, and what may be done with a disk, is for others.
//
// It needs sysfs and devtmpfs, not udev: what udev would put into
// /dev/disk/by-* is read from sysfs, from the NVMe controller and from the disk.
package block

import "unlock/internal/luks/luks2"

// Kind of a disk.
type Kind int

const (
	KindOther         Kind = iota // any other block device, partitions and dm devices included
	KindInstanceStore             // NVMe model or vendor bytes of EC2 instance store, or serial AWS… (QEMU)
	KindEBS
)

// String returns the kind as messages name it.
func (k Kind) String() string {
	switch k {
	case KindInstanceStore:
		return "instance store"
	case KindEBS:
		return "EBS"
	}
	return "other"
}

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
	Attach     string // "sdf" for EBS, "ephemeral0" for instance store; from vendor bytes, or see Mapped
	PartUUID   string // of a partition, lower case
	Parent     string // of a partition: its disk's name
	DM         string // of a device-mapper device: its name below /dev/mapper
	InUse      bool   // has holders (dm, md) or partitions; a mounted file system does not show
}

// Finder lists and awaits disks. The zero value looks at the running system.
type Finder struct {
	Sys string // "" means /sys
	Dev string // "" means /dev

	identify  func(path string) ([]byte, error) // nil: identifyController
	subscribe func() (eventSource, error)       // nil: the kernel's uevents
}

// ContentKind is what is on a disk. The zero value is Unreadable.
type ContentKind int

const (
	Unreadable ContentKind = iota
	Blank                  // no signature known to blkid, and zero in every place looked at (places.go)
	LUKS                   // LUKS magic in any place where a header may be
	Foreign                // anything else
	Begun                  // unlock was formatting it when it was interrupted; no volume is on it
)

// String returns the kind as messages name it.
func (k ContentKind) String() string {
	switch k {
	case Blank:
		return "blank"
	case LUKS:
		return "LUKS"
	case Foreign:
		return "foreign"
	case Begun:
		return "begun"
	}
	return "unreadable"
}

// Content is the verdict on a disk.
type Content struct {
	Kind  ContentKind
	What  string // for people: "ext4 file system \"data\"", "data at byte 4096", "reading byte 0: input/output error"
	Label string // of a file system or LUKS header
	UUID  string
	Over  luks2.Over // Begun: what was there before
}
