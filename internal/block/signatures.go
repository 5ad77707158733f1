package block

import "encoding/binary"

// signature is a mark of somebody's data. Only those outside the first and last
// MiB decide whether a disk is blank; the others name what is there.
type signature struct {
	name  string // for people
	magic string
	at    []int64 // bytes from the beginning, or from the end if negative
	uuid  int64   // where its UUID is; 0 for none that is read
	label field
	also  func(img *image, off int64) bool // a further condition on the magic at off
}

type field struct {
	off  int64
	size int
}

// weak tells that the magic is found in random data too often to mean much.
func (s signature) weak() bool { return len(s.magic) < 4 && s.also == nil }

const mdMagic = "\xfc\x4e\x2b\xa9"

// mdEnd is how many bytes before the end of a device mdAtEnd looks at most.
const mdEnd = 128 << 10

// mdAtEnd is a superblock of md, version 1.0 or 0.90, that leaves the beginning of
// a member to the content of the array.
func mdAtEnd(size int64) signature {
	return signature{name: "Linux md RAID member", magic: mdMagic, at: []int64{size&^0xfff - 8192, size&^0xffff - 65536}}
}

// signatures returns what libblkid knows, for a device of size bytes, but for what
// has hardly a magic (VIA and JMicron RAID, Atari and DASD partitions): containers
// first, then file systems, then partition tables, those with the shortest magic
// last. Offsets and magics are those of libblkid's superblocks/ and partitions/.
func signatures(size int64) []signature {
	sector := size / 512 * 512 // RAID metadata counts whole sectors from the end
	end := func(sectors int64) int64 { return sector - sectors*512 }
	ext := field{0x478, 16}
	return []signature{
		// Members of arrays and volume groups.
		mdAtEnd(size),
		{name: "Linux md RAID member", magic: mdMagic, at: []int64{0, 4096}},
		{name: "Linux md RAID member (big-endian)", magic: "\xa9\x2b\x4e\xfc", at: []int64{size&^0xffff - 65536}},
		{name: "DDF RAID member", magic: "\xde\x11\xde\x11", at: []int64{end(1), end(257)}},
		{name: "Intel RAID member", magic: "Intel Raid ISM Cfg Sig. ", at: []int64{end(2), size&^0xfff - 8192}},
		{name: "LSI MegaRAID member", magic: "$XIDE$", at: []int64{end(1)}},
		{name: "Silicon Image RAID member", magic: "\x00\x00\x00\x2f", at: []int64{end(1) + 0x60}},
		{name: "NVIDIA RAID member", magic: "NVIDIA  ", at: []int64{end(2)}},
		{name: "Promise FastTrak RAID member", magic: "Promise Technology, Inc.", at: []int64{
			end(63), end(255), end(256), end(16), end(399), end(591), end(675), end(735),
			end(911), end(974), end(991), end(951), end(3087)}},
		{name: "HighPoint RAID member", magic: "\xf0\x16\x78\x5a", at: []int64{4640, end(11)}},
		{name: "HighPoint RAID member", magic: "\xfd\x16\x78\x5a", at: []int64{4640, end(11)}},
		{name: "Adaptec RAID member", magic: "DPTM", at: []int64{end(1)}},
		{name: "LVM physical volume", magic: "LVM2 001", at: []int64{0x18, 0x218, 0x418, 0x618}},
		{name: "LVM snapshot", magic: "SnAp", at: []int64{0}},
		{name: "bcache device", magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", at: []int64{4120}},
		{name: "bcachefs file system", magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", at: []int64{2*mib + 24, 24 - mib}},
		{name: "bcachefs file system", magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", at: []int64{4120, 2*mib + 24, 24 - mib}},
		{name: "Ceph BlueStore", magic: "bluestore block device", at: []int64{0}},
		{name: "DRBD metadata", magic: "\x83\x74\x02\x6b", at: []int64{60 - 4096}},
		{name: "DRBD metadata", magic: "\x83\x74\x02\x6c", at: []int64{60 - 4096}},
		{name: "DRBD metadata", magic: "\x83\x74\x02\x6d", at: []int64{60 - 4096}},
		{name: "DRBD control volume", magic: "$DRBDmgr=q", at: []int64{0}},
		{name: "DRBD proxy log", magic: "DRBDdlh*", at: []int64{0}},
		{name: "dm-verity hashes", magic: "verity\x00\x00", at: []int64{0}},
		{name: "dm-integrity volume", magic: "integrt\x00", at: []int64{0}},
		{name: "VDO volume", magic: "dmvdo001", at: []int64{0}},
		{name: "Stratis pool member", magic: "!Stra0tis\x86\xff\x02^\x41rh", at: []int64{516, 4612}},
		{name: "BitLocker volume", magic: "-FVE-FS-", at: []int64{3}},
		{name: "VMFS volume", magic: "\x0d\xd0\x01\xc0", at: []int64{1 * mib}},
		{name: "VMFS file system", magic: "\x5e\xf1\xab\x2f", at: []int64{2 * mib}},
		{name: "UBI device", magic: "UBI#", at: []int64{0}},
		{name: "ZFS pool member", magic: "\x0c\xb1\xba\x00\x00\x00\x00\x00", at: zfsUberblocks(size)},
		{name: "ZFS pool member (big-endian)", magic: "\x00\x00\x00\x00\x00\xba\xb1\x0c", at: zfsUberblocks(size)},
		{name: "Oracle ASM disk", magic: "ORCLDISK", at: []int64{32}},

		// File systems and swap.
		{name: "hibernation image", magic: "\xed\xc3\x02\xe9\x98\x56\xe5\x0c", at: []int64{0}},
		{name: "hibernation image", magic: "S1SUSPEND", at: swapPages},
		{name: "hibernation image", magic: "S2SUSPEND", at: swapPages},
		{name: "hibernation image", magic: "ULSUSPEND", at: swapPages},
		{name: "hibernation image", magic: "LINHIB0001", at: swapPages},
		{name: "swap space", magic: "SWAPSPACE2", at: swapPages, uuid: 1036, label: field{1052, 16}},
		{name: "swap space", magic: "SWAP-SPACE", at: swapPages},
		{name: "XFS file system", magic: "XFSB", at: []int64{0}, uuid: 32, label: field{108, 12}},
		{name: "btrfs file system", magic: "_BHRfS_M", at: []int64{0x10040}, uuid: 0x10020, label: field{0x1012b, 256}},
		{name: "ext journal", magic: "\x53\xef", at: []int64{0x438}, uuid: 0x468, label: ext, also: extHas(0, 8)},
		{name: "ext4 file system", magic: "\x53\xef", at: []int64{0x438}, uuid: 0x468, label: ext, also: extHas(0, 0x2c0)},
		{name: "ext3 file system", magic: "\x53\xef", at: []int64{0x438}, uuid: 0x468, label: ext, also: extHas(4, 0)},
		{name: "ext2 file system", magic: "\x53\xef", at: []int64{0x438}, uuid: 0x468, label: ext, also: extHas(0, 0)},
		{name: "f2fs file system", magic: "\x10\x20\xf5\xf2", at: []int64{0x400, 0x1400}, uuid: 0x46c},
		{name: "exFAT file system", magic: "EXFAT   ", at: []int64{3}},
		{name: "NTFS file system", magic: "NTFS    ", at: []int64{3}},
		{name: "ReFS file system", magic: "\x00\x00\x00ReFS\x00", at: []int64{0}},
		{name: "FAT file system", magic: "FAT32   ", at: []int64{0x52}},
		{name: "FAT file system", magic: "MSWIN", at: []int64{0x52}},
		{name: "FAT file system", magic: "FAT16   ", at: []int64{0x36}},
		{name: "FAT file system", magic: "FAT12   ", at: []int64{0x36}},
		{name: "FAT file system", magic: "FAT     ", at: []int64{0x36}},
		{name: "FAT file system", magic: "MSDOS", at: []int64{0x36}},
		{name: "UDF file system", magic: "NSR02", at: every(32<<10, 64<<10, 2048, 1)},
		{name: "UDF file system", magic: "NSR03", at: every(32<<10, 64<<10, 2048, 1)},
		{name: "ISO 9660 file system", magic: "CD001", at: []int64{0x8001}},
		{name: "ISO 9660 file system (High Sierra)", magic: "CDROM", at: []int64{0x8009}},
		{name: "squashfs file system", magic: "hsqs", at: []int64{0}},
		{name: "squashfs file system", magic: "sqsh", at: []int64{0}},
		{name: "EROFS file system", magic: "\xe2\xe1\xf5\xe0", at: []int64{0x400}},
		{name: "cramfs file system", magic: "\x45\x3d\xcd\x28", at: []int64{0, 512}},
		{name: "cramfs file system", magic: "\x28\xcd\x3d\x45", at: []int64{0, 512}},
		{name: "romfs file system", magic: "-rom1fs-", at: []int64{0}},
		{name: "JFS file system", magic: "JFS1", at: []int64{32 << 10}},
		{name: "ReiserFS file system", magic: "ReIsErFs", at: []int64{0x2034, 0x2014, 0x10034}},
		{name: "ReiserFS file system", magic: "ReIsEr2Fs", at: []int64{0x10034}},
		{name: "ReiserFS file system", magic: "ReIsEr3Fs", at: []int64{0x10034}},
		{name: "Reiser4 file system", magic: "ReIsEr4", at: []int64{64 << 10}},
		{name: "OCFS file system", magic: "OracleCFS", at: []int64{8 << 10}},
		{name: "OCFS2 file system", magic: "OCFSV2", at: []int64{1 << 10, 2 << 10, 4 << 10, 8 << 10}},
		{name: "GFS2 file system", magic: "\x01\x16\x19\x70", at: []int64{64 << 10}},
		{name: "scoutfs file system", magic: "\x8b\x42\x3c\x10", at: []int64{64<<10 + 4}},
		{name: "APFS container", magic: "NXSB", at: []int64{32}},
		{name: "VxFS file system", magic: "\xf5\xfc\x01\xa5", at: []int64{1 << 10}},
		{name: "VxFS file system", magic: "\xa5\x01\xfc\xf5", at: []int64{8 << 10}},
		{name: "NetWare storage", magic: "SPB5", at: []int64{4 << 10}},
		{name: "HPFS file system", magic: "\x49\xe8\x95\xf9", at: []int64{8 << 10}},
		{name: "UFS file system", magic: "\x54\x19\x01\x00", at: ufsMagics},
		{name: "UFS file system", magic: "\x00\x01\x19\x54", at: ufsMagics},
		{name: "UFS2 file system", magic: "\x19\x01\x54\x19", at: ufsMagics},
		{name: "UFS2 file system", magic: "\x19\x54\x01\x19", at: ufsMagics},
		{name: "BFS file system", magic: "\xce\xfa\xad\x1b", at: []int64{0}},
		{name: "BeFS file system", magic: "BFS1", at: []int64{32, 544}},
		{name: "BeFS file system", magic: "1SFB", at: []int64{32, 544}},
		{name: "UBIFS file system", magic: "\x31\x18\x10\x06", at: []int64{0}},
		{name: "mpool device", magic: "mpoolDev", at: []int64{0}},
		{name: "zonefs file system", magic: "SFOZ", at: []int64{0}},
		{name: "EXFS file system", magic: "EXFS", at: []int64{0}},
		{name: "System V file system", magic: "\x20\x7e\x18\xfd", at: []int64{1016, 10232, 16376, 19448}},
		{name: "System V file system", magic: "\xfd\x18\x7e\x20", at: []int64{1016, 10232, 16376, 19448}},
		{name: "XFS external log", magic: "\xfe\xed\xba\xbe", at: every(0, 256<<10, 512, 0)},

		// Partition tables.
		{name: "GPT partition table", magic: "EFI PART", at: []int64{512, 4096}},
		{name: "GPT partition table (only its backup)", magic: "EFI PART", at: []int64{end(1), size&^0xfff - 4096}},
		{name: "BSD disk label", magic: "\x57\x45\x56\x82", at: []int64{512, 64, 128}},
		{name: "SGI disk label", magic: "\x0b\xe5\xa9\x41", at: []int64{0}},
		{name: "AIX disk label", magic: "\xc9\xc2\xd4\xc1", at: []int64{0}},
		{name: "Solaris disk label", magic: "\xee\xde\x0d\x60", at: []int64{524}},
		{name: "UnixWare disk label", magic: "\x0d\x60\xe5\xca", at: []int64{29*512 + 4}},
		{name: "MBR partition table", magic: "\x55\xaa", at: []int64{510}, also: mbrHasPartitions},

		// Magics so short that they are also found in random data.
		{name: "nilfs2 file system", magic: "\x34\x34", at: []int64{0x406, end(8) + 6}},
		{name: "HFS+ file system", magic: "H+", at: []int64{1 << 10}},
		{name: "HFS+ file system", magic: "HX", at: []int64{1 << 10}},
		{name: "HFS file system", magic: "BD", at: []int64{1 << 10}},
		{name: "MINIX file system", magic: "\x7f\x13", at: []int64{0x410}},
		{name: "MINIX file system", magic: "\x8f\x13", at: []int64{0x410}},
		{name: "MINIX file system", magic: "\x68\x24", at: []int64{0x410}},
		{name: "MINIX file system", magic: "\x78\x24", at: []int64{0x410}},
		{name: "MINIX file system", magic: "\x5a\x4d", at: []int64{0x418}},
		{name: "Xenix file system", magic: "\x2b\x55\x44", at: []int64{0x800}},
		{name: "Xenix file system", magic: "\x44\x55\x2b", at: []int64{0x800}},
		{name: "Core Storage volume", magic: "CS", at: []int64{88}},
		{name: "LVM1 physical volume", magic: "HM", at: []int64{0}},
		{name: "Sun disk label", magic: "\xda\xbe", at: []int64{508}},
		{name: "Mac partition map", magic: "ER", at: []int64{0}},
		{name: "Ultrix disk label", magic: "\x57\x29\x03", at: []int64{16384 - 72}},
		{name: "boot sector", magic: "\x55\xaa", at: []int64{510}},
	}
}

// swapPages are where the magic of swap ends a page of 4 to 64 KiB.
var swapPages = []int64{0xff6, 0x1ff6, 0x3ff6, 0x7ff6, 0xfff6}

// ufsMagics are in superblocks at 0, 8, 64 and 256 KiB.
var ufsMagics = []int64{1372, 8<<10 + 1372, 64<<10 + 1372, 256<<10 + 1372}

// every returns the offsets from begin until end in steps, plus a distance.
func every(begin, end, step, plus int64) []int64 {
	var at []int64
	for off := begin; off < end; off += step {
		at = append(at, off+plus)
	}
	return at
}

// zfsUberblocks are in the second half of four labels of 256 KiB, two at each end.
func zfsUberblocks(size int64) []int64 {
	const label = 256 << 10
	var at []int64
	last := size / label * label
	for _, l := range []int64{0, label, last - 2*label, last - label} {
		at = append(at, every(l+label/2, l+label, 1024, 0)...)
	}
	return at
}

// extHas tells an ext file system by its features: one of the compatible or one
// of the incompatible ones, where any are asked for.
func extHas(compatible, incompatible uint32) func(*image, int64) bool {
	return func(img *image, off int64) bool {
		sb := img.at(off-0x38, 1024)
		if sb == nil {
			return false
		}
		has := binary.LittleEndian.Uint32(sb[0x5c:])&compatible != 0 ||
			binary.LittleEndian.Uint32(sb[0x60:])&incompatible != 0
		return has || compatible|incompatible == 0
	}
}

// mbrHasPartitions tells a table from the boot sector of a file system: its four
// entries are marked active or not, and one has a type and sectors.
func mbrHasPartitions(img *image, _ int64) bool {
	table := img.at(446, 64)
	used := false
	for entry := range 4 {
		e := table[entry*16 : entry*16+16]
		if e[0]&0x7f != 0 {
			return false
		}
		used = used || e[4] != 0 && binary.LittleEndian.Uint32(e[12:]) != 0
	}
	return used
}
