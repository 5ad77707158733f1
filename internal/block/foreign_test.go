package block

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"unlock/test/program"
)

// luksFormat makes a volume quickly; the key file comes last.
const luksFormat = "cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "

// foreign are contents of disks, most made by the tools people make them with.
// The tools are in these packages of Debian 12: apfsprogs bcache-tools btrfs-progs
// cryptsetup-bin dosfstools drbd-utils e2fsprogs erofs-utils exfatprogs f2fs-tools
// fdisk gdisk genisoimage genromfs gfs2-utils hfsutils jfsutils lvm2 mount
// nilfs-tools ntfs-3g ocfs2-tools parted reiser4progs reiserfsprogs squashfs-tools
// udftools util-linux xfsprogs.
var foreign = []struct {
	name  string
	size  int64  // 0: 320 MiB
	sh    string // makes it on $IMG; a few files are in $DIR/files
	put   func(img *os.File, size int64) error
	want  ContentKind
	what  string // begins What
	blkid string // what blkid calls it, if it must
	label string
	root  bool // its maker has a lock in /var/lock, which is root's once root has run it
}{
	// File systems.
	{name: "ext2", sh: "mkfs.ext2 -q -F $IMG", want: Foreign, what: "ext2 file system", blkid: "ext2"},
	{name: "ext3", sh: "mkfs.ext3 -q -F $IMG", want: Foreign, what: "ext3 file system", blkid: "ext3"},
	{name: "ext4", sh: "mkfs.ext4 -q -F -L data $IMG", want: Foreign, what: `ext4 file system "data"`, blkid: "ext4", label: "data"},
	{name: "ext4 of 1 MiB", size: mib, sh: "mkfs.ext4 -q -F $IMG", want: Foreign, what: "ext4 file system", blkid: "ext4"},
	{name: "ext journal", sh: "mke2fs -q -F -O journal_dev $IMG", want: Foreign, what: "ext journal", blkid: "jbd"},
	{name: "xfs", sh: "mkfs.xfs -q -L logs $IMG", want: Foreign, what: `XFS file system "logs"`, blkid: "xfs", label: "logs"},
	{name: "btrfs", sh: "mkfs.btrfs -q -L tank $IMG", want: Foreign, what: `btrfs file system "tank"`, blkid: "btrfs", label: "tank"},
	{name: "f2fs", sh: "mkfs.f2fs -q -f $IMG", want: Foreign, what: "f2fs file system", blkid: "f2fs"},
	{name: "nilfs2", sh: "mkfs.nilfs2 -q $IMG", want: Foreign, what: "nilfs2 file system", blkid: "nilfs2"},
	{name: "nilfs2, second superblock only", sh: "mkfs.nilfs2 -q $IMG && dd if=/dev/zero of=$IMG bs=1M count=1 conv=notrunc", want: Foreign, what: "nilfs2 file system"},
	{name: "jfs", sh: "mkfs.jfs -q $IMG", want: Foreign, what: "JFS file system", blkid: "jfs"},
	{name: "reiserfs", sh: "mkfs.reiserfs -q -f -f $IMG", want: Foreign, what: "ReiserFS file system", blkid: "reiserfs"},
	{name: "reiser4", sh: "mkfs.reiser4 -y -f $IMG", want: Foreign, what: "Reiser4 file system", blkid: "reiser4"},
	{name: "ocfs2", sh: "yes | mkfs.ocfs2 -q -M local $IMG", want: Foreign, what: "OCFS2 file system", blkid: "ocfs2"},
	{name: "gfs2", sh: "mkfs.gfs2 -O -q -p lock_nolock $IMG", want: Foreign, what: "GFS2 file system", blkid: "gfs2"},
	{name: "vfat 12", size: 8 * mib, sh: "mkfs.vfat -F 12 $IMG", want: Foreign, what: "FAT file system", blkid: "vfat"},
	{name: "vfat 16", sh: "mkfs.vfat -F 16 $IMG", want: Foreign, what: "FAT file system", blkid: "vfat"},
	{name: "vfat 32", sh: "mkfs.vfat -F 32 $IMG", want: Foreign, what: "FAT file system", blkid: "vfat"},
	{name: "exfat", sh: "mkfs.exfat $IMG", want: Foreign, what: "exFAT file system", blkid: "exfat"},
	{name: "ntfs", sh: "mkntfs -q -F -Q $IMG", want: Foreign, what: "NTFS file system", blkid: "ntfs"},
	{name: "hfs", sh: "hformat -f $IMG", want: Foreign, what: "HFS file system", blkid: "hfs"},
	{name: "apfs", sh: "mkapfs $IMG", want: Foreign, what: "APFS container", blkid: "apfs"},
	{name: "udf", sh: "mkudffs $IMG", want: Foreign, what: "UDF file system", blkid: "udf"},
	{name: "udf, blocks of 4096", sh: "mkudffs -b 4096 $IMG", want: Foreign, what: "UDF file system", blkid: "udf"},
	{name: "iso9660", sh: "genisoimage -quiet -o $IMG $DIR/files", want: Foreign, what: "ISO 9660 file system", blkid: "iso9660"},
	{name: "squashfs", sh: "mksquashfs $DIR/files $IMG -noappend -quiet", want: Foreign, what: "squashfs file system", blkid: "squashfs"},
	{name: "erofs", sh: "mkfs.erofs $IMG $DIR/files", want: Foreign, what: "EROFS file system", blkid: "erofs"},
	{name: "cramfs", sh: "mkfs.cramfs $DIR/files $IMG", want: Foreign, what: "cramfs file system", blkid: "cramfs"},
	{name: "romfs", sh: "genromfs -f $IMG -d $DIR/files", want: Foreign, what: "romfs file system", blkid: "romfs"},
	{name: "minix 1", sh: "mkfs.minix -1 $IMG", want: Foreign, what: "MINIX file system", blkid: "minix"},
	{name: "minix 2", sh: "mkfs.minix -2 $IMG", want: Foreign, what: "MINIX file system", blkid: "minix"},
	{name: "minix 3", sh: "mkfs.minix -3 $IMG", want: Foreign, what: "MINIX file system", blkid: "minix"},
	{name: "bfs", sh: "mkfs.bfs $IMG", want: Foreign, what: "BFS file system", blkid: "bfs"},
	{name: "vmfs", put: at(2*mib, "\x5e\xf1\xab\x2f"), want: Foreign, what: "VMFS file system"},

	// Swap.
	{name: "swap", sh: "mkswap -L s $IMG", want: Foreign, what: `swap space "s"`, blkid: "swap", label: "s"},
	{name: "swap, pages of 64 KiB", sh: "mkswap -p 65536 $IMG", want: Foreign, what: "swap space", blkid: "swap"},
	{name: "hibernation", sh: "mkswap $IMG && printf S1SUSPEND | dd of=$IMG bs=1 seek=4086 conv=notrunc", want: Foreign, what: "hibernation image", blkid: "swsuspend"},

	// Members of arrays and volume groups.
	{name: "lvm", put: lvmLabel, want: Foreign, what: "LVM physical volume", blkid: "LVM2_member"},
	{name: "md 0.90", put: md090, want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "md 1.0", put: md1(-8192), want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "md 1.1", put: md1(0), want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "md 1.2", put: md1(4096), want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "luks2 in md 1.0", sh: luksFormat + "$IMG $DIR/files/key", put: md1(-8192), want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "luks1 in md 0.90", sh: luksFormat + "--type luks1 $IMG $DIR/files/key", put: md090, want: Foreign, what: "Linux md RAID member", blkid: "linux_raid_member"},
	{name: "zfs, first label", put: zfsLabel(0), want: Foreign, what: "ZFS pool member", blkid: "zfs_member"},
	{name: "zfs, last label", put: zfsLabel(-256 << 10), want: Foreign, what: "ZFS pool member", blkid: "zfs_member"},
	{name: "bcache, backing", sh: "make-bcache -B $IMG", want: Foreign, what: "bcache device", blkid: "bcache"},
	{name: "bcache, cache", sh: "make-bcache -C $IMG", want: Foreign, what: "bcache device", blkid: "bcache"},
	{name: "drbd 8", sh: "drbdmeta --force 208 v08 $IMG internal create-md", want: Foreign, what: "DRBD metadata", blkid: "drbd", root: true},
	{name: "drbd 9", sh: "drbdmeta --force 209 v09 $IMG internal create-md 1", want: Foreign, what: "DRBD metadata", blkid: "drbd", root: true},
	{name: "intel raid", put: at(-1024, "Intel Raid ISM Cfg Sig. 1.2.02"), want: Foreign, what: "Intel RAID member", blkid: "isw_raid_member"},
	{name: "promise raid, 1.5 MiB from the end", put: at(-3087*512, "Promise Technology, Inc."), want: Foreign, what: "Promise FastTrak RAID member", blkid: "promise_fasttrack_raid_member"},
	{name: "ddf raid", put: at(-512, "\xde\x11\xde\x11"), want: Foreign, what: "DDF RAID member"},
	{name: "verity", sh: "veritysetup format $IMG $DIR/hash && cp $DIR/hash $IMG", want: Foreign, what: "dm-verity hashes", blkid: "DM_verity_hash"},
	{name: "bluestore", put: at(0, "bluestore block device\n"), want: Foreign, what: "Ceph BlueStore", blkid: "ceph_bluestore"},
	{name: "vmfs volume", put: at(mib, "\x0d\xd0\x01\xc0"), want: Foreign, what: "VMFS volume", blkid: "VMFS_volume_member"},
	{name: "vdo", put: at(0, "dmvdo001"), want: Foreign, what: "VDO volume", blkid: "vdo"},
	{name: "bitlocker", put: at(0, "\xeb\x58\x90-FVE-FS-"), want: Foreign, what: "BitLocker volume"},

	// Partition tables.
	{name: "gpt", sh: "sgdisk -n 1:0:0 $IMG", want: Foreign, what: "GPT partition table", blkid: "gpt"},
	{name: "gpt without partitions", sh: "sgdisk -o $IMG", want: Foreign, what: "GPT partition table", blkid: "gpt"},
	{name: "gpt, backup only", sh: "sgdisk -n 1:0:0 $IMG && dd if=/dev/zero of=$IMG bs=1M count=1 conv=notrunc", want: Foreign, what: "GPT partition table (only its backup)"},
	{name: "mbr", sh: "echo ,,L | sfdisk -q -X dos $IMG", want: Foreign, what: "MBR partition table", blkid: "dos"},
	{name: "mbr without partitions", sh: "echo label: dos | sfdisk -q $IMG", want: Foreign, what: "boot sector", blkid: "dos"},
	{name: "sun", sh: "echo ,, | sfdisk -q -X sun $IMG", want: Foreign, what: "Sun disk label", blkid: "sun"},
	{name: "sgi", sh: "echo , | sfdisk -q -X sgi $IMG", want: Foreign, what: "SGI disk label", blkid: "sgi"},
	{name: "mac", sh: "parted -s $IMG mklabel mac", want: Foreign, what: "Mac partition map", blkid: "mac"},
	{name: "bsd", sh: "parted -s $IMG mklabel bsd", want: Foreign, what: "BSD disk label"},
	{name: "amiga", sh: "parted -s $IMG mklabel amiga", want: Foreign, what: "data at byte "},
	{name: "atari", sh: "parted -s $IMG mklabel atari", want: Foreign, what: "data at byte "},

	// LUKS.
	{name: "luks1", sh: luksFormat + "--type luks1 $IMG $DIR/files/key", want: LUKS, what: "LUKS1 volume", blkid: "crypto_LUKS"},
	{name: "luks2", sh: luksFormat + "--label vault $IMG $DIR/files/key", want: LUKS, what: `LUKS2 volume "vault"`, blkid: "crypto_LUKS", label: "vault"},
	{name: "luks2 in what was a gpt disk", sh: "sgdisk -n 1:0:0 $IMG && " + luksFormat + "$IMG $DIR/files/key", want: LUKS, what: "LUKS2 volume"},
	{name: "luks2, second header at 16 KiB", sh: secondOnly("16k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 16384)", label: "vault"},
	{name: "luks2, second header at 32 KiB", sh: secondOnly("32k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 32768)", label: "vault"},
	{name: "luks2, second header at 64 KiB", sh: secondOnly("64k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 65536)", label: "vault"},
	{name: "luks2, second header at 128 KiB", sh: secondOnly("128k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 131072)", label: "vault"},
	{name: "luks2, second header at 256 KiB", sh: secondOnly("256k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 262144)", label: "vault"},
	{name: "luks2, second header at 512 KiB", sh: secondOnly("512k"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 524288)", label: "vault"},
	{name: "luks2, second header at 1 MiB", sh: secondOnly("1m"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 1048576)", label: "vault"},
	{name: "luks2, second header at 2 MiB", sh: secondOnly("2m"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 2097152)", label: "vault"},
	{name: "luks2, second header at 4 MiB", sh: secondOnly("4m"), want: LUKS, what: "LUKS2 volume without its first header (second at byte 4194304)", label: "vault"},
	{name: "luks2, second header, and two bytes of HFS by chance", sh: secondOnly("16k") + " && printf BD | dd of=$IMG bs=1 seek=1024 conv=notrunc",
		want: LUKS, what: "LUKS2 volume without its first header", label: "vault"},
	{name: "ext4 made over luks2", sh: luksFormat + "--luks2-metadata-size 4m --luks2-keyslots-size 8m $IMG $DIR/files/key && mkfs.ext4 -q -F -E nodiscard $IMG",
		want: Foreign, what: "ext4 file system, and a second LUKS2 header"},
	{name: "xfs made over luks2", sh: luksFormat + "--luks2-metadata-size 4m --luks2-keyslots-size 8m $IMG $DIR/files/key && mkfs.xfs -q -f -K $IMG",
		want: Foreign, what: "XFS file system, and a second LUKS2 header"},
	{name: "luks2 wiped by its owner", sh: luksFormat + "$IMG $DIR/files/key && dd if=/dev/zero of=$IMG bs=1M count=17 conv=notrunc", want: Blank, what: "blank"},
	{name: "luks2, both headers lost", sh: luksFormat + "$IMG $DIR/files/key && dd if=/dev/zero of=$IMG bs=32k count=1 conv=notrunc", want: Foreign, what: "data at byte 327"}, // random key material may begin with zeros

	// Anything else.
	{name: "nothing", sh: "true", want: Blank, what: "blank"},
	{name: "nothing on 1 MiB", size: mib, sh: "true", want: Blank, what: "blank"},
	{name: "random", size: 16 * mib, put: random, want: Foreign, what: ""},
	{name: "text", sh: "seq 1000000 > $IMG", want: Foreign, what: "data at byte 0"},
	{name: "tar", sh: "tar cf $IMG $DIR/files", want: Foreign, what: "data at byte 0"},
	{name: "last byte of the first MiB", put: at(mib-1, "x"), want: Foreign, what: "data at byte 1048575"},
	{name: "first byte of the last MiB", put: at(-mib, "x"), want: Foreign, what: "data at byte "},
	{name: "middle", put: at(100*mib, "by the rule, this is blank"), want: Blank, what: "blank"},
	{name: "ext4 wiped at both ends", sh: "mkfs.ext4 -q -F $IMG && dd if=/dev/zero of=$IMG bs=1M count=1 conv=notrunc && dd if=/dev/zero of=$IMG bs=1M seek=319 count=1 conv=notrunc",
		want: Foreign, what: "data at byte"},
	{name: "ext4 without its superblock", sh: "mkfs.ext4 -q -F $IMG && dd if=/dev/zero of=$IMG bs=4k count=1 conv=notrunc", want: Foreign, what: "data at byte "},
}

// secondOnly makes a LUKS2 volume with headers of a size and loses the first.
func secondOnly(size string) string {
	return luksFormat + "--label vault --luks2-keyslots-size 4m --luks2-metadata-size " + size +
		" $IMG $DIR/files/key && dd if=/dev/zero of=$IMG bs=4096 count=1 conv=notrunc"
}

// TestForeign compares Probe with what made the content, and with blkid: what
// blkid names is never blank. A short run has one content of four.
func TestForeign(t *testing.T) {
	for i, test := range foreign {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && i%4 > 0 {
				t.Skip("-short: of the contents, one of four")
			}
			if test.root && os.Getuid() != 0 {
				t.Skip("its maker's lock in /var/lock may be root's")
			}
			img, size := filepath.Join(t.TempDir(), "img"), test.size
			if size == 0 {
				size = 320 * mib
			}
			must(t, os.WriteFile(img, nil, 0o600))
			must(t, os.Truncate(img, size))
			files := filepath.Join(filepath.Dir(img), "files")
			must(t, os.Mkdir(files, 0o700))
			must(t, os.WriteFile(filepath.Join(files, "key"), []byte("correct horse battery staple"), 0o600))
			if test.sh != "" {
				program.Run(t, shell(test.sh, img))
			}
			f, err := os.OpenFile(img, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			if test.put != nil {
				must(t, test.put(f, size))
			}
			if info, err := f.Stat(); err != nil || info.Size() > size {
				t.Fatalf("the image grew: %v", err)
			}
			must(t, f.Truncate(size)) // tools that make images make short ones
			must(t, os.Chtimes(img, time.Time{}, time.Unix(1e9, 0)))

			got := content(t, img, size)
			if got.Kind != test.want || !strings.HasPrefix(got.What, test.what) || got.Label != test.label {
				t.Errorf("Content = %+v, want %v (%s…)", got, test.want, test.what)
			}
			names, uuid := blkid(t, img)
			if strings.HasPrefix(got.What, "data at byte") && len(names) > 0 {
				t.Errorf("without a signature, but blkid finds %q", names)
			}
			if got.Kind == Blank && len(names) > 0 {
				t.Errorf("blank, but blkid finds %q", names)
			}
			if test.blkid != "" && !slices.Contains(names, test.blkid) {
				t.Errorf("blkid finds %q, want %s", names, test.blkid)
			}
			if test.blkid != "" && got.UUID != "" && uuid != "" && got.UUID != uuid {
				t.Errorf("UUID %s, blkid finds %s", got.UUID, uuid)
			}
			if info, err := os.Stat(img); err != nil || info.ModTime().Unix() != 1e9 {
				t.Errorf("probing wrote to the image (%v)", err)
			}
		})
	}
}

// TestPhysicalVolume has pvcreate write what lvmLabel writes by hand; it needs a
// loop device.
func TestPhysicalVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("pvcreate needs root and a loop device; TestForeign has a label made by hand")
	}
	if out, err := shell("losetup -f", "").CombinedOutput(); err != nil {
		t.Skipf("no loop device for pvcreate: %s", out) // in a container
	}
	img := filepath.Join(t.TempDir(), "img")
	must(t, os.WriteFile(img, nil, 0o600))
	must(t, os.Truncate(img, 64*mib))
	const script = `loop=$(losetup -f --show "$IMG") || exit
trap 'losetup -d "$loop"' EXIT
pvcreate -q --config "devices { use_devicesfile=0 global_filter=[ \"a|^$loop\$|\", \"r|.*|\" ] }" "$loop"`
	if out, err := shell(script, img).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got := content(t, img, 64*mib)
	if got.Kind != Foreign || got.What != "LVM physical volume" {
		t.Errorf("Content = %+v, want an LVM physical volume", got)
	}
}

// TestBlkidKnows holds the table of signatures against what this machine's
// libblkid says it knows.
func TestBlkidKnows(t *testing.T) {
	// Names that differ from ours. Those with none have no magic, or one that
	// is weak; they lie in the last MiB, whose data make a disk foreign.
	ours := map[string]string{
		"linux_raid_member": "linux md", "isw_raid_member": "intel", "lsi_mega_raid_member": "lsi", "via_raid_member": "",
		"silicon_medley_raid_member": "silicon", "promise_fasttrack_raid_member": "promise", "hpt45x_raid_member": "highpoint",
		"hpt37x_raid_member": "highpoint", "jmicron_raid_member": "", "ceph_bluestore": "ceph bluestore",
		"drbdmanage_control_volume": "drbd control", "drbdproxy_datalog": "drbd proxy", "LVM2_member": "lvm physical",
		"LVM1_member": "lvm1", "DM_snapshot_cow": "lvm snapshot", "DM_verity_hash": "dm-verity", "DM_integrity": "dm-integrity",
		"crypto_LUKS": "", "VMFS_volume_member": "vmfs volume", "cs_fvault2": "core storage", "vfat": "fat",
		"swsuspend": "hibernation", "xfs_external_log": "xfs external", "ext4dev": "ext4", "jbd": "ext journal", "reiserfs": "reiser",
		"iso9660": "iso 9660", "zfs_member": "zfs", "hfsplus": "hfs+", "sysv": "system v", "gfs": "gfs2", "oracleasm": "oracle asm",
		"squashfs3": "squashfs", "nss": "netware", "scoutfs_meta": "scoutfs", "scoutfs_data": "scoutfs", "crypto_LUKS_opal": "",
	}
	out, err := shell("blkid -k", "").Output()
	must(t, err)
	if len(out) == 0 {
		t.Fatal("blkid -k says nothing")
	}
	for _, name := range strings.Fields(string(out)) {
		want, ok := ours[name]
		if !ok {
			want, _, _ = strings.Cut(strings.ToLower(name), "_")
		}
		if !slices.ContainsFunc(signatures(0), func(s signature) bool { return strings.HasPrefix(strings.ToLower(s.name), want) }) {
			t.Errorf("blkid knows %s, no signature begins with %q", name, want)
		}
	}
}

// content probes an image.
func content(t *testing.T, img string, size int64) Content {
	t.Helper()
	f, err := os.Open(img)
	must(t, err)
	defer f.Close()
	return Probe(f, size)
}

// shell runs a script with an image as $IMG.
func shell(script, img string) *exec.Cmd {
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), "IMG="+img, "DIR="+filepath.Dir(img), "HOME="+filepath.Dir(img))
	return cmd
}

// blkid returns all types that util-linux's blkid finds on an image, and the
// UUID where it finds one.
func blkid(t *testing.T, img string) (names []string, uuid string) {
	t.Helper()
	program.Need(t, "blkid")
	out, err := shell("blkid -p -o export $IMG", img).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		switch exit.ExitCode() {
		case 2:
			return nil, ""
		case 8:
			return []string{"several contradicting signatures"}, ""
		}
	}
	must(t, err)
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "TYPE", "PTTYPE":
			names = append(names, value)
		case "UUID":
			uuid = value
		}
	}
	return names, uuid
}

// at puts data on an image, from its end where the offset is negative.
func at(off int64, data string) func(*os.File, int64) error {
	return func(img *os.File, size int64) error {
		if off < 0 {
			off += size
		}
		_, err := img.WriteAt([]byte(data), off)
		return err
	}
}

func random(img *os.File, size int64) error {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(data)
	_, err := img.WriteAt(data, 0)
	return err
}

// The superblocks below are written by hand, because the tools that make them
// need drivers of the kernel; blkid, which verifies their checksums, is the judge.

// md1 writes a version 1 superblock (linux/raid/md_p.h) at an offset.
func md1(off int64) func(*os.File, int64) error {
	return func(img *os.File, size int64) error {
		if off < 0 {
			off += size
		}
		sb := make([]byte, 256)
		le := binary.LittleEndian
		le.PutUint32(sb, 0xa92b4efc)
		le.PutUint32(sb[4:], 1)
		copy(sb[16:], "0123456789abcdef") // set UUID
		copy(sb[32:], "host:0")
		le.PutUint64(sb[144:], uint64(off)/512)
		sum := uint64(0)
		for i := 0; i < len(sb); i += 4 {
			sum += uint64(le.Uint32(sb[i:]))
		}
		le.PutUint32(sb[216:], uint32(sum)+uint32(sum>>32))
		return at(off, string(sb))(img, size)
	}
}

// md090 writes a version 0.90 superblock.
func md090(img *os.File, size int64) error {
	sb := make([]byte, 4096)
	for i, word := range []uint32{0xa92b4efc, 0, 90, 3, 0, 0x12345678, 0, 1, 1024} {
		binary.LittleEndian.PutUint32(sb[4*i:], word)
	}
	return at(size&^0xffff-0x10000, string(sb))(img, size)
}

// lvmLabel writes the label of an LVM2 physical volume into sector 1.
func lvmLabel(img *os.File, size int64) error {
	label := make([]byte, 512)
	le := binary.LittleEndian
	copy(label, "LABELONE")
	le.PutUint64(label[8:], 1)
	le.PutUint32(label[20:], 32)
	copy(label[24:], "LVM2 001")
	copy(label[32:], "abcdefghijklmnopqrstuvwxyz012345")
	le.PutUint32(label[16:], ^crc32.Update(^uint32(0xf597a6cf), crc32.IEEETable, label[20:]))
	return at(512, string(label))(img, size)
}

// zfsLabel writes uberblocks into the label at an offset.
func zfsLabel(off int64) func(*os.File, int64) error {
	return func(img *os.File, size int64) error {
		for i := range int64(8) {
			uberblock := binary.LittleEndian.AppendUint64(nil, 0x00bab10c)
			uberblock = binary.LittleEndian.AppendUint64(uberblock, 5000)
			if err := at(off+(128+i)<<10, string(uberblock))(img, size); err != nil {
				return err
			}
		}
		return nil
	}
}
