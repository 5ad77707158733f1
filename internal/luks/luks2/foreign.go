package luks2

import (
	"bytes"
	"fmt"
	"io"
)

// signatures of what may have been written over a primary header while the
// secondary survived. Offsets in bytes.
var signatures = []struct {
	offset int64
	magic  string
	name   string
}{
	{510, "\x55\xaa", "a partition table or boot sector"},
	{512, "EFI PART", "a partition table"},
	{4096, "EFI PART", "a partition table"},
	{1080, "\x53\xef", "an ext2, ext3 or ext4 file system"},
	{0, "XFSB", "an XFS file system"},
	{65600, "_BHRfS_M", "a btrfs file system"},
	{1024, "\x10\x20\xf5\xf2", "an f2fs file system"},
	{0, "hsqs", "a squashfs"},
	{0, "-FVE-FS-", "a BitLocker volume"},
	{4086, "SWAPSPACE2", "swap space"},
	{4086, "SWAP-SPACE", "swap space"},
	{0, "LABELONE", "an LVM physical volume"},
	{512, "LABELONE", "an LVM physical volume"},
	{1024, "LABELONE", "an LVM physical volume"},
	{1536, "LABELONE", "an LVM physical volume"},
	{0, "\xfc\x4e\x2b\xa9", "a RAID member"},
	{4096, "\xfc\x4e\x2b\xa9", "a RAID member"},
	{24, "\xcb\xa1\x1d\x0b", "a bcache device"},
}

// foreign returns an error if something else has moved in where the primary header
// of n bytes should be. Opening such a volume would mean writing into somebody
// else's data; repairing it would destroy them. cryptsetup asks blkid here.
func foreign(r io.ReaderAt, n int64) error {
	b := make([]byte, n)
	if readFull(r, b, 0) != nil {
		return nil // a damaged primary is what the secondary is for
	}
	for _, s := range signatures {
		if s.offset < n && bytes.HasPrefix(b[s.offset:], []byte(s.magic)) {
			return fmt.Errorf("%s was written over the primary LUKS2 header; only a secondary header at byte %d is left", s.name, n)
		}
	}
	return nil
}
