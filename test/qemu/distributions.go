package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"unlock/test/distro"
	"unlock/test/lab"
	"unlock/test/vm"
)

// systems are those of all distributions, which packaging/install-test uses too. All
// scenarios of Debian 13 with dracut share one.
var (
	bookwormDracut   = distro.System{Suite: "bookworm", Packages: "dracut"}
	bookwormTools    = distro.System{Suite: "bookworm", Packages: "initramfs-tools"}
	trixieDracut     = distro.System{Suite: "trixie", Packages: "dracut,dracut-network,systemd-cryptsetup,lvm2,mdadm"}
	trixieTools      = distro.System{Suite: "trixie", Packages: "initramfs-tools"}
	trixieContainers = distro.System{Suite: "trixie", Packages: "dracut,xfsprogs,containerd,runc"}
	trixieSysvinit   = distro.System{Suite: "trixie", Packages: "initramfs-tools,systemd,initscripts,sysv-rc", Init: "sysvinit-core"}
	trixieSELinux    = distro.System{Suite: "trixie", Packages: "dracut,selinux-policy-default,policycoreutils,nginx"}
	trixieKdump      = distro.System{Suite: "trixie", Packages: "dracut,systemd-cryptsetup,kexec-tools"}

	systems = []distro.System{bookwormDracut, trixieDracut, bookwormTools, trixieTools}
)

// installed is a system with an image built by its own generator.
type installed struct {
	distro.System
	distro.Generator
	thorough bool     // see distro.Image
	plain    bool     // likewise
	files    []string // in a copy of the system: path, text, path, …
}

// patience is what a system is told on the kernel command line to have on a slow machine.
const patience = " systemd.default_timeout_start_sec=600 systemd.default_device_timeout_sec=600"

// putOnRoot puts files on the machine's root: path, content, and so on.
func putOnRoot(ctx context.Context, l *lab.Lab, files []string) error {
	for file := range slices.Chunk(files, 2) {
		if err := l.PutOnRoot(ctx, file[0], []byte(file[1])); err != nil {
			return err
		}
	}
	return nil
}

// machine is a lab.System.
func (i installed) machine(ctx context.Context, l *lab.Lab) error {
	system, err := i.Get(ctx)
	if err != nil {
		return err
	}
	key, err1 := os.ReadFile(l.File("key.bin"))
	dir := l.File("build")
	if err := errors.Join(err1, os.Mkdir(dir, 0o755)); err != nil {
		return err
	}
	image, growth, err := distro.Image{
		Generator: i.Generator, Root: system.Root, Config: l.Expand(l.Config), Thorough: i.thorough, Plain: i.plain,
		Files: map[string][]byte{"key.bin": key, "test-ca.pem": l.Cloud.CA()},
	}.Build(ctx, dir)
	if err != nil {
		return err
	}
	if i.thorough {
		l.Note("image grows by %.2f MB", float64(growth)/1e6)
	}
	l.Base.Kernel, l.Base.Initrd, l.Base.Root, l.Base.Memory, l.Base.Timeout = system.Kernel, image, system.Root, 2048, 40*time.Minute
	// On a busy host a machine without acceleration is slower than systemd expects of any.
	l.Base.Append = "root=LABEL=" + vm.RootLabel + " ro systemd.show_status=1" + patience
	l.Up = "distribution_up"
	return putOnRoot(ctx, l, append([]string{
		// systemd 252 takes nothing for devices from the kernel command line.
		"/etc/systemd/system.conf.d/busy-host.conf", "[Manager]\nDefaultDeviceTimeoutSec=600\n",
	}, i.files...))
}

// dracut sets dracut up: images are compressed lightly, and conf is added.
func dracut(hostonly, conf string) distro.Generator {
	return distro.Generator{
		File: "/etc/dracut.conf.d/test.conf", Rebuild: "dracut -q -f --regenerate-all",
		Text: "compress=\"zstd -1 -q\"\nhostonly=\"" + hostonly + "\"\n" + conf + "\n",
	}
}

// An image made on the machine itself would have what checks its root file system;
// where the chroot does not tell what that is, the generator is told.
const (
	hasFsck    = `fscks="fsck fsck.ext4 e2fsck"`
	plainDisks = `omit_dracutmodules+=" lvm mdraid "` // Debian 13's system has both
	noSystemd  = "\nomit_dracutmodules+=\" systemd systemd-initrd dracut-systemd \"\nadd_dracutmodules+=\" busybox \""
	networkd   = "\nadd_dracutmodules+=\" systemd-networkd \""
)

var initramfsTools = distro.Generator{
	File: "/etc/initramfs-tools/conf.d/test", Rebuild: "update-initramfs -u -k all",
	Text: "COMPRESS=zstd\nCOMPRESSLEVEL=1\nFSTYPE=ext4\n",
}

// distributions are real ones, with images built by their own generators. They are
// in the order in which they run: those that make a system first.
var distributions = []lab.Scenario{
	{
		// The chroot is not the machine that boots: drivers must be there even so.
		Name: "debian12-dracut", Config: usualConfig, Disks: blank(1),
		System: installed{System: bookwormDracut, Generator: dracut("yes", hasFsck), thorough: true}.machine,
		Boots:  append(twice(""), denied("rd.shell=0 rd.emergency=poweroff")),
	},
	{
		Name: "debian13-dracut-systemd", Config: usualConfig, Disks: blank(1),
		System: installed{System: trixieDracut, Generator: dracut("no", plainDisks), thorough: true}.machine,
		Boots:  append(timed(twice("show_status\nshow_start")), denied("rd.shell=0 rd.emergency=poweroff")),
	},
	{
		Name: "debian12-initramfs-tools", Config: usualConfig, Disks: blank(1),
		System: installed{System: bookwormTools, Generator: initramfsTools, thorough: true}.machine,
		Boots:  append(twice(""), skipped, denied("")),
	},
	{
		Name: "debian13-initramfs-tools", Config: usualConfig, Disks: blank(1),
		System: installed{System: trixieTools, Generator: initramfsTools, thorough: true}.machine,
		Boots:  append(twice(""), denied("")),
	},
	{
		Name: "debian13-dracut-busybox", Config: usualConfig, Disks: blank(1),
		System: installed{System: trixieDracut, Generator: dracut("no", plainDisks+noSystemd), thorough: true}.machine,
		Boots:  append(twice(""), skipped, denied("rd.shell=0 rd.emergency=poweroff")),
	},
	{
		// The image has a network of its own, which unlock uses and leaves alone.
		Name: "crypttab", Config: usualConfig, Disks: blank(1),
		System: installed{System: trixieDracut, Generator: dracut("no", plainDisks+networkd),
			files: []string{"/etc/crypttab", "secretfs /dev/nvme0n1 none luks\n"}}.machine,
		Boots: append(withNetwork(twice("already_active")), lab.Boot{
			Append: "rd.unlock=0", Want: []string{skippedText, lab.FileText}, Script: "typed_open",
			Typed: []vm.Typed{{When: "Please enter passphrase for disk", Text: lab.Passphrase + "\n", After: person}},
		}),
	},
	{
		Name: "root-on-volume", Config: rootConfig, Disks: []string{"blank:2200"},
		System: installed{System: trixieDracut, Generator: dracut("no", plainDisks),
			files: rootOfVolume}.machine,
		Boots: []lab.Boot{
			{Append: "root=/dev/vda rd.unlock=0", Machine: besideRoot, Script: "move_root", Secret: true},
			{Append: "root=/dev/mapper/system", Script: "root_on_volume\nwrite_root"},
			{
				Append: "root=/dev/mapper/system", Deadline: 15 * time.Second, Faults: []string{"kms-denied"},
				Typed: []vm.Typed{{When: systemQuestion, Text: "wrong " + lab.Passphrase + "\n", After: person},
					{When: systemQuestion, Text: lab.Passphrase + "\n", After: person}},
				Script: "root_on_volume\ncat /root/file", Want: []string{"AccessDenied", "hint: ", "(press TAB for no echo)", lab.FileText},
			},
		},
	},
	{
		Name: "lvm-md", Config: stackedConfig, Disks: blank(3),
		System: installed{System: trixieDracut, Generator: dracut("no", ""), files: lvmLocks}.machine,
		Boots:  []lab.Boot{makeStacked, readStacked, readStacked},
	},
	{
		Name: "lvm-md-busybox", Config: stackedConfig, Disks: blank(3),
		System: installed{System: trixieDracut, Generator: dracut("no", noSystemd), files: lvmLocks}.machine,
		Boots:  []lab.Boot{makeStacked, readStacked},
	},
}

// person is how long people take to begin to type. The agent of systemd shows its
// question before it turns the echo off.
const person = 3 * time.Second

// usualConfig has a volume on a disk and one in a file. The root file system
// forgets between boots what is written to it, so the second is always made anew.
const usualConfig = fileKey + secretfs + `[[volume]]
name       = "infile"
device     = "file:/var/lib/infile"
size       = "48MiB"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/infile"
`

// twice is a first boot, which formats and writes, and a second, which reads;
// check is what else holds after both.
func twice(check string) []lab.Boot {
	opened := "opened secretfs infile\n" + check + "\n"
	return []lab.Boot{
		{Script: opened + "write_open"},
		{Script: opened + "read_open", Want: []string{lab.FileText}},
	}
}

// timed has all time of the boots have a name.
func timed(boots []lab.Boot) []lab.Boot {
	for i := range boots {
		boots[i].Check = lab.TimeHasAName
	}
	return boots
}

// denied is a boot that KMS refuses a key: it is held up, whatever the image's own
// settings would have done with it.
func denied(settings string) lab.Boot {
	return lab.Boot{Append: settings, Faults: []string{"kms-denied"}, Machine: endAfter(heldText, 15*time.Second),
		Want: []string{"AccessDenied", "hint: ", heldText + "; trying again in"}, Check: staysUp}
}

const skippedText = "skipped (rd.unlock=0)"

// skipped is a boot without volumes, on request.
var skipped = lab.Boot{Append: "rd.unlock=0", Want: []string{skippedText}, Script: "no_volumes"}

// withNetwork has the image raise the network before each boot.
func withNetwork(boots []lab.Boot) []lab.Boot {
	for i := range boots {
		boots[i].Append += " ip=dhcp rd.neednet=1"
		boots[i].Want = append(boots[i].Want, "configured already")
	}
	return boots
}

// The root file system on a volume that unlock opens, and a recovery passphrase
// that people type, through systemd's agent on the console.
const (
	rootConfig = fileKey + `
[[volume]]
name       = "system"
device     = "/dev/nvme0n1"
on_failure = "prompt"
`
	systemQuestion = "Recovery passphrase for volume system:"
)

// rootOfVolume has the system's root on that volume.
var rootOfVolume = []string{"/etc/fstab", "/dev/mapper/system / ext4 defaults 0 1\n"}

// besideRoot boots the system that all scenarios share; its copy with the scenario's
// files is the disk behind the script's.
func besideRoot(l *lab.Lab, m *vm.Machine) {
	m.Disks = append([]vm.Disk{{File: m.Root, Serial: "spare", Virtio: true, ReadOnly: true}}, m.Disks...)
	m.Root = l.SharedRoot
}

// lvmLocks mends a race of Debian 13's own. lvm2-monitor.service makes a lock in
// /run/lock/lvm, and fails when run-lock.mount, after which it is not ordered, covers
// that directory just then.
var lvmLocks = []string{"/etc/systemd/system/lvm2-monitor.service.d/locks.conf", "[Unit]\nRequiresMountsFor=/run/lock\n"}

// LUKS on a logical volume and on an array, which the image's own means activate. The
// array has its superblock at the end, so that each member begins like the array.
const (
	stackedConfig = fileKey + `
[[volume]]
name       = "onlv"
device     = "/dev/vault/secret"
filesystem = "ext4"
mount      = "/mnt/onlv"
[[volume]]
name       = "onmd"
device     = "UUID=` + luksUUID + `"
filesystem = "ext4"
mount      = "/mnt/onmd"
`
	luksUUID  = "7d1f9a52-0c35-4a86-9d5e-5be1c2a4f360"
	arrayUUID = "3aaa0122:29827cfa:5331ad66:ca767371"
)

var (
	makeStacked = lab.Boot{Append: "rd.unlock=0", Want: []string{skippedText}, Secret: true, Script: "make_stacked " + luksUUID + " " + arrayUUID}
	readStacked = lab.Boot{Append: "rd.lvm.lv=vault/secret rd.md.uuid=" + arrayUUID,
		Want: []string{lab.FileText + ", in onlv", lab.FileText + ", in onmd"}, Script: "read_stacked"}
)
