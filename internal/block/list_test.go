package block

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"unlock/test/program"
)

// tree makes a fake sysfs below a temporary directory: "path: content" lines,
// "path -> target" for links, "path/.:" for empty directories.
func tree(t *testing.T, root, spec string) {
	t.Helper()
	for line := range strings.Lines(spec) {
		line = strings.TrimSpace(line)
		if link, target, ok := strings.Cut(line, " -> "); ok {
			link = filepath.Join(root, link)
			must(t, os.MkdirAll(filepath.Dir(link), 0o755))
			os.Remove(link) // it may be there from a spec before
			must(t, os.Symlink(target, link))
			continue
		}
		name, content, _ := strings.Cut(line, ": ")
		if name == "" {
			continue
		}
		name = strings.TrimSuffix(name, ":")
		must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
		if name = filepath.Join(root, name); filepath.Base(line) == ".:" {
			continue
		}
		must(t, os.WriteFile(name, []byte(strings.ReplaceAll(content, `\n`, "\n")+"\n"), 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// nitro is an instance with EBS root and data volumes, two instance-store disks
// (one of them below multipath), a dm device, loop devices and a RAM disk.
const nitro = `
devices/pci/nvme/nvme0/nvme0n1/dev: 259:0
devices/pci/nvme/nvme0/nvme0n1/size: 16777216
devices/pci/nvme/nvme0/nvme0n1/ro: 0
devices/pci/nvme/nvme0/nvme0n1/holders/.:
devices/pci/nvme/nvme0/nvme0n1/queue/logical_block_size: 512
devices/pci/nvme/nvme0/nvme0n1/device/model: Amazon Elastic Block Store              
devices/pci/nvme/nvme0/nvme0n1/device/serial: vol0123456789abcdef0
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/dev: 259:1
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/size: 16775168
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/ro: 0
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/holders/.:
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/partition: 1
devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1/uevent: MAJOR=259\nPARTN=1\nPARTUUID=0FC63DAF-8483-4772-8E79-3D69D8477DE4
class/block/nvme0n1 -> ../../devices/pci/nvme/nvme0/nvme0n1
class/block/nvme0n1p1 -> ../../devices/pci/nvme/nvme0/nvme0n1/nvme0n1p1

devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/dev: 259:2
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/size: 146484375
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/ro: 0
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/hidden: 0
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/holders/dm-0:
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/queue/logical_block_size: 512
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/device/model: Amazon EC2 NVMe Instance Storage        
devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1/device/serial: AWS24EA21E43EA1A8414
devices/pci/nvme/nvme1/nvme1c1n1/size: 146484375
devices/pci/nvme/nvme1/nvme1c1n1/ro: 0
devices/pci/nvme/nvme1/nvme1c1n1/hidden: 1
devices/pci/nvme/nvme1/nvme1c1n1/holders/.:
devices/pci/nvme/nvme1/nvme1c1n1/queue/logical_block_size: 512
class/block/nvme1n1 -> ../../devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1
class/block/nvme1c1n1 -> ../../devices/pci/nvme/nvme1/nvme1c1n1

devices/pci/nvme/nvme10/nvme10n1/dev: 259:3
devices/pci/nvme/nvme10/nvme10n1/size: 146484375
devices/pci/nvme/nvme10/nvme10n1/ro: 1
devices/pci/nvme/nvme10/nvme10n1/holders/.:
devices/pci/nvme/nvme10/nvme10n1/queue/logical_block_size: 4096
devices/pci/nvme/nvme10/nvme10n1/device/model: QEMU NVMe Ctrl
devices/pci/nvme/nvme10/nvme10n1/device/serial: AWS0123456789ABCDEF0
class/block/nvme10n1 -> ../../devices/pci/nvme/nvme10/nvme10n1

devices/virtual/block/dm-0/dev: 253:0
devices/virtual/block/dm-0/size: 146451607
devices/virtual/block/dm-0/ro: 0
devices/virtual/block/dm-0/holders/.:
devices/virtual/block/dm-0/queue/logical_block_size: 512
devices/virtual/block/dm-0/dm/name: secretfs
class/block/dm-0 -> ../../devices/virtual/block/dm-0

devices/virtual/block/loop0/dev: 7:0
devices/virtual/block/loop0/size: 0
devices/virtual/block/loop0/ro: 0
devices/virtual/block/loop0/holders/.:
devices/virtual/block/loop0/queue/logical_block_size: 512
class/block/loop0 -> ../../devices/virtual/block/loop0

devices/pci/virtio1/block/vda/dev: 254:0
devices/pci/virtio1/block/vda/size: 2048
devices/pci/virtio1/block/vda/ro: 0
devices/pci/virtio1/block/vda/holders/.:
devices/pci/virtio1/block/vda/queue/logical_block_size: 512
devices/pci/virtio1/block/vda/serial: vol0fedcba9876543210
class/block/vda -> ../../devices/pci/virtio1/block/vda

devices/pci/cciss!c0d0/dev: 104:0
devices/pci/cciss!c0d0/size: 8
devices/pci/cciss!c0d0/ro: 0
devices/pci/cciss!c0d0/holders/.:
devices/pci/cciss!c0d0/queue/logical_block_size: 512
devices/pci/cciss!c0d0/cciss!c0d0p1/dev: 104:1
devices/pci/cciss!c0d0/cciss!c0d0p1/size: 4
devices/pci/cciss!c0d0/cciss!c0d0p1/ro: 0
devices/pci/cciss!c0d0/cciss!c0d0p1/holders/.:
devices/pci/cciss!c0d0/cciss!c0d0p1/partition: 1
class/block/cciss!c0d0 -> ../../devices/pci/cciss!c0d0
class/block/cciss!c0d0p1 -> ../../devices/pci/cciss!c0d0/cciss!c0d0p1

class/block/gone -> ../../devices/that/just/went
`

func TestList(t *testing.T) {
	sys := t.TempDir()
	tree(t, sys, nitro)
	var asked []string
	f := &Finder{Sys: sys, Dev: "/dev", identify: func(path string) ([]byte, error) {
		asked = append(asked, path)
		if vendor, ok := map[string]string{"/dev/nvme0n1": "/dev/sda1", "/dev/nvme1n1": "ephemeral0:none\x00"}[path]; ok {
			return []byte(vendor + strings.Repeat(" ", 1000)), nil
		}
		return nil, errors.New("not there, as in QEMU")
	}}
	want := []Disk{
		{Name: "cciss/c0d0", Path: "/dev/cciss/c0d0", Major: 104, Size: 4096, SectorSize: 512, InUse: true},
		{Name: "cciss/c0d0p1", Path: "/dev/cciss/c0d0p1", Major: 104, Minor: 1, Size: 2048, SectorSize: 512, Parent: "cciss/c0d0"},
		{Name: "dm-0", Path: "/dev/dm-0", Major: 253, Size: 146451607 * 512, SectorSize: 512, DM: "secretfs"},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Major: 259, Size: 8 << 30, SectorSize: 512, Kind: KindEBS,
			Model: "Amazon Elastic Block Store", Serial: "vol0123456789abcdef0", Attach: "sda1", InUse: true},
		{Name: "nvme0n1p1", Path: "/dev/nvme0n1p1", Major: 259, Minor: 1, Size: 8<<30 - 1<<20, SectorSize: 512,
			PartUUID: "0fc63daf-8483-4772-8e79-3d69d8477de4", Parent: "nvme0n1"},
		{Name: "nvme1n1", Path: "/dev/nvme1n1", Major: 259, Minor: 2, Size: 75e9, SectorSize: 512, Kind: KindInstanceStore,
			Model: "Amazon EC2 NVMe Instance Storage", Serial: "AWS24EA21E43EA1A8414", Attach: "ephemeral0", InUse: true},
		{Name: "nvme10n1", Path: "/dev/nvme10n1", Major: 259, Minor: 3, Size: 75e9, SectorSize: 4096, ReadOnly: true,
			Kind: KindInstanceStore, Model: "QEMU NVMe Ctrl", Serial: "AWS0123456789ABCDEF0"},
		{Name: "vda", Path: "/dev/vda", Major: 254, Size: 1 << 20, SectorSize: 512, Kind: KindEBS, Serial: "vol0fedcba9876543210"},
	}
	got, err := f.List()
	must(t, err)
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("List differs from disk %d on:\n got %+v\nwant %+v", i, got[min(i, len(got)):], want[min(i, len(want)):])
		}
	}
	if want := []string{"/dev/nvme0n1", "/dev/nvme1n1", "/dev/nvme10n1"}; !slices.Equal(slices.Sorted(slices.Values(asked)), slices.Sorted(slices.Values(want))) {
		t.Errorf("identified %q, want %q", asked, want)
	}
}

func TestListWithoutSysfs(t *testing.T) {
	_, err := (&Finder{Sys: t.TempDir()}).List()
	if err == nil || !strings.HasPrefix(err.Error(), "listing block devices: ") {
		t.Errorf("List = %v, want an error", err)
	}
}

func TestListNonsense(t *testing.T) {
	for _, broken := range []string{"size: many", "dev: 8", "ro: ", "queue/logical_block_size: x"} {
		sys := t.TempDir()
		tree(t, sys, disk("sda"))
		tree(t, sys, "class/block/sda/"+broken)
		_, err := (&Finder{Sys: sys}).List()
		if err == nil || !strings.Contains(err.Error(), "block device sda") {
			t.Errorf("List with %q: %v, want an error that names sda", broken, err)
		}
	}
}

// disk is the spec of a disk that is listed; it stands directly below class/block.
func disk(name string) string {
	return strings.ReplaceAll(`
class/block/NAME/dev: 8:0
class/block/NAME/size: 2048
class/block/NAME/ro: 0
class/block/NAME/holders/.:
class/block/NAME/queue/logical_block_size: 512
`, "NAME", name)
}

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		name, model, serial, vendor string
		want                        Kind
		attach                      string
	}{
		{"instance store", modelInstanceStore, "AWS24EA21E43EA1A8414", "ephemeral0:none\x00\x00", KindInstanceStore, "ephemeral0"},
		{"instance store with a mapping", modelInstanceStore, "AWS24EA21E43EA1A8414", "ephemeral11:sdb\x00", KindInstanceStore, "ephemeral11"},
		{"instance store without vendor bytes", modelInstanceStore, "AWS24EA21E43EA1A8414", "", KindInstanceStore, ""},
		{"instance store by vendor bytes alone", "", "", "ephemeral3:sdb", KindInstanceStore, "ephemeral3"},
		{"instance store by serial alone", "QEMU NVMe Ctrl", "AWS0123456789ABCDEF0", strings.Repeat("\x00", 1024), KindInstanceStore, ""},
		{"EBS", modelEBS, "vol0123456789abcdef0", "sdf" + strings.Repeat(" ", 29) + "more", KindEBS, "sdf"},
		{"EBS with a path", modelEBS, "vol0123456789abcdef0", "/dev/xvdba  ", KindEBS, "xvdba"},
		{"EBS by serial alone", "QEMU NVMe Ctrl", "vol0123456789abcdef0", "", KindEBS, ""},
		{"EBS with nonsense", modelEBS, "", "\x1b[2J\xff", KindEBS, ""},
		{"QEMU", "QEMU NVMe Ctrl", "disk0", strings.Repeat("\x00", 1024), KindOther, ""},
		{"serial too short", "", "AWS0123456789ABCDEF", "", KindOther, ""},
		{"serial too long", "", "AWS0123456789ABCDEF01", "", KindOther, ""},
		{"serial not hexadecimal", "", "AWS0123456789ABCDEFG", "", KindOther, ""},
		{"serial in lower case", "", "AWS0123456789abcdef0", "", KindOther, ""},
		{"ephemeral without a number", "", "", "ephemeral:sdb", KindOther, ""},
		{"ephemeral without a colon", "", "", "ephemeral0", KindOther, ""},
		{"ephemeral with a word", "", "", "ephemeral0x:sdb", KindOther, ""},
		{"model within another", "Not " + modelInstanceStore, "", "", KindOther, ""},
		{"nothing", "", "", "", KindOther, ""},
	} {
		if got, attach := classify(test.model, test.serial, []byte(test.vendor)); got != test.want || attach != test.attach {
			t.Errorf("%s: classify = %v %q, want %v %q", test.name, got, attach, test.want, test.attach)
		}
	}
}

// TestAdminCommand holds the layout of the ioctl's argument: 72 bytes, the number
// of the ioctl says.
func TestAdminCommand(t *testing.T) {
	var c adminCommand
	if got := [...]uintptr{unsafe.Sizeof(c), unsafe.Offsetof(c.Addr), unsafe.Offsetof(c.Len), unsafe.Offsetof(c.CDW), unsafe.Offsetof(c.TimeoutMS)}; got != [...]uintptr{72, 24, 36, 40, 64} {
		t.Errorf("size and offsets = %v", got)
	}
	if _, err := identifyController("/dev/null"); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("identifying /dev/null: %v, want %v", err, unix.ENOTTY)
	}
}

func TestMapped(t *testing.T) {
	disks := []Disk{
		{Name: "xvda"}, {Name: "xvda1", Parent: "xvda"}, {Name: "xvdb"}, {Name: "vdc"}, {Name: "sdd"}, {Name: "xvdd"}, {Name: "xvde"}, {Name: "xvdf"},
		{Name: "nvme0n1", Kind: KindInstanceStore, Attach: "ephemeral0"},
	}
	got := Mapped(disks, map[string]string{
		"ami": "/dev/xvda", "root": "/dev/sda1", "ephemeral0": "sdb", "ephemeral1": "/dev/sdc", "ephemeral2": "sdd",
		"ebs1": "sdf", "ephemeral3": "nvme0n1", "swap": "sde", "ephemeralX": "sde", "ephemeral4": "sdz",
	})
	want := []Disk{
		{Name: "xvda", Kind: KindEBS, Attach: "xvda"}, {Name: "xvda1", Parent: "xvda"}, {Name: "xvdb", Kind: KindInstanceStore, Attach: "ephemeral0"},
		{Name: "vdc", Kind: KindInstanceStore, Attach: "ephemeral1"}, {Name: "sdd", Kind: KindInstanceStore, Attach: "ephemeral2"}, {Name: "xvdd"},
		{Name: "xvde"}, {Name: "xvdf", Kind: KindEBS, Attach: "sdf"},
		{Name: "nvme0n1", Kind: KindInstanceStore, Attach: "ephemeral0"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("Mapped =\n%+v, want\n%+v", got, want)
	}
	if disks[0].Kind != KindOther {
		t.Error("Mapped changed its argument")
	}
}

func TestNaturalCompare(t *testing.T) {
	names := []string{"nvme0n1", "nvme0n2", "nvme1n1", "nvme1n1p1", "nvme1n1p10", "nvme10n1", "sda", "sdz", "sdza"}
	for i, a := range names {
		for j, b := range names {
			if got := naturalCompare(a, b); got != cmp.Compare(i, j) {
				t.Errorf("naturalCompare(%s, %s) = %d, want %d", a, b, got, cmp.Compare(i, j))
			}
		}
	}
}

// TestPartUUID reads it from tables that sfdisk made, where the uevent has none.
func TestPartUUID(t *testing.T) {
	const id = "3f1b6a52-9d4e-4c07-8a15-b2c3d4e5f607"
	for _, test := range []struct{ name, script, number, want string }{
		{"gpt", "label: gpt\nsize=1M, uuid=" + strings.ToUpper(id), "1", id},
		{"gpt, second", "label: gpt\nsize=1M\nsize=1M, uuid=" + id, "2", id},
		{"gpt, none", "label: gpt\nsize=1M", "200", ""},
		{"gpt, sectors of 4096", "label: gpt\nsize=1M, uuid=" + id, "1", id},
		{"mbr", "label: dos\nlabel-id: 0x00c0ffee\nsize=1M\nsize=1M", "2", "00c0ffee-02"},
		{"none", "", "1", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			img, sectorSize := filepath.Join(root, "sda"), "512"
			must(t, os.WriteFile(img, nil, 0o600))
			must(t, os.Truncate(img, 16*mib))
			move := "" // sfdisk makes no tables for sectors of 4096 bytes in files
			if strings.HasSuffix(test.name, "4096") {
				sectorSize, move = "4096", ` && dd if=$IMG of=$IMG bs=512 skip=2 seek=16 count=32 conv=notrunc &&
					dd if=$IMG of=$IMG bs=512 skip=1 seek=8 count=1 conv=notrunc && dd if=/dev/zero of=$IMG bs=512 seek=1 count=1 conv=notrunc`
			}
			if test.script != "" {
				sfdisk := shell("sfdisk -q $IMG"+move, img)
				sfdisk.Stdin = strings.NewReader(test.script + "\n")
				program.Run(t, sfdisk)
			}
			tree(t, root, "sys/sda/queue/logical_block_size: "+sectorSize+"\nsys/sda/sda1/partition: "+test.number)
			f := &Finder{Dev: root}
			if got := f.partUUID(filepath.Join(root, "sys/sda/sda1"), filepath.Join(root, "sys/sda")); got != test.want {
				t.Errorf("partUUID = %q, want %q", got, test.want)
			}
		})
	}
}
