package distro

import (
	"slices"
	"time"

	"unlock/test/vm"
)

// Generators: what sets them up and rebuilds all images, and what a boot that has
// failed comes to when nobody is at the console. Images are compressed lightly. An
// image made on the machine itself would have what checks its root file system;
// where the chroot does not tell what that is, the generator is told.
const (
	dracut = `
cat >/etc/dracut.conf.d/test.conf <<END
compress="zstd -1 -q"
hostonly="$HOSTONLY"
$CONF
END
`
	rebuildDracut = "dracut -q -f --regenerate-all"
	dracutStop    = "rd.shell=0 rd.emergency=reboot"
	dracutStops   = "Boot has failed"

	initramfsTools = `printf 'COMPRESS=zstd\nCOMPRESSLEVEL=1\nFSTYPE=ext4\n' >/etc/initramfs-tools/conf.d/test`
	rebuildTools   = "update-initramfs -u -k all"
	toolsStops     = "Rebooting automatically due to panic= boot argument"
)

// trixieDracut are the packages of all scenarios of Debian 13 with dracut, which
// so share one system. Most leave the modules for LVM and md out.
const (
	trixieDracut = "dracut,dracut-network,systemd-cryptsetup,lvm2,mdadm"
	plainDisks   = `omit_dracutmodules+=" lvm mdraid "`
	noSystemd    = `omit_dracutmodules+=" systemd systemd-initrd dracut-systemd "
add_dracutmodules+=" busybox "`
)

// Scenarios in the order in which they run: those that make a system first.
var Scenarios = []Scenario{
	{
		Name: "debian12-dracut", suite: "bookworm", packages: "dracut", rebuild: rebuildDracut,
		// The chroot is not the machine that boots: drivers must be there even so.
		config: "HOSTONLY=yes CONF='fscks=\"fsck fsck.ext4 e2fsck\"'\n" + dracut,
		boots:  append(twice(""), denied(dracutStop, dracutStops)),
	},
	{
		Name: "debian13-dracut-systemd", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut,
		config: "HOSTONLY=no CONF='" + plainDisks + "'\n" + dracut,
		boots:  append(twice(""), denied(dracutStop, dracutStops)),
	},
	{
		Name: "debian12-initramfs-tools", suite: "bookworm", packages: "initramfs-tools", rebuild: rebuildTools,
		config: initramfsTools,
		boots:  append(twice(""), skipped, denied("", toolsStops)),
	},
	{
		Name: "debian13-initramfs-tools", suite: "trixie", packages: "initramfs-tools", rebuild: rebuildTools,
		config: initramfsTools,
		boots:  append(twice(""), denied("", toolsStops)),
	},
	{
		Name: "debian13-dracut-busybox", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut,
		config: "HOSTONLY=no CONF='" + plainDisks + "\n" + noSystemd + "'\n" + dracut,
		boots:  append(twice(""), skipped, denied(dracutStop, dracutStops)),
	},
	{
		// The image has a network of its own, which unlock uses and leaves alone.
		Name: "crypttab", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut, unlock: usualConfig,
		config: "HOSTONLY=no CONF='" + plainDisks + "\nadd_dracutmodules+=\" systemd-networkd \"'\n" + dracut,
		files:  []string{"/etc/crypttab=secretfs /dev/nvme0n1 none luks\n"},
		boots: slices.Concat(
			withNetwork(twice(`
active systemd-cryptsetup@secretfs.service
# Not by unit: journald may be too late to learn whose so brief a process was.
journalctl -b -o cat -t systemd-cryptsetup | grep 'secretfs already active'
`)),
			[]boot{{
				append: "rd.unlock=0", want: []string{skippedText, fileText},
				typed: []vm.Typed{{When: "Please enter passphrase for disk", Text: passphrase + "\n", After: person}},
				script: `
active systemd-cryptsetup@secretfs.service
mount /dev/mapper/secretfs /mnt
cat /mnt/file
`,
			}}),
	},
	{
		Name: "root-on-volume", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut, unlock: rootConfig,
		config: "HOSTONLY=no CONF='" + plainDisks + "'\n" + dracut,
		disks:  []int64{2200}, files: []string{"/etc/fstab=/dev/mapper/system / ext4 defaults 0 1\n"},
		boots: []boot{
			{append: "root=/dev/vda rd.unlock=0", spare: true, script: luksFormat + `
luks_format /dev/nvme0n1
cryptsetup open --key-file /run/key /dev/nvme0n1 system
e2image -ra /dev/vdc /dev/mapper/system
`},
			{append: "root=/dev/mapper/system", script: onVolume + "echo '" + fileText + "' >/root/file"},
			{
				append: "root=/dev/mapper/system rd.unlock.timeout=15s", fault: "kms-denied",
				typed:  []vm.Typed{{When: question, Text: "wrong " + passphrase + "\n", After: person}, {When: question, Text: passphrase + "\n", After: person}},
				script: onVolume + "cat /root/file", want: []string{"AccessDenied", "hint: ", "(press TAB for no echo)", fileText},
			},
		},
	},
	{
		Name: "lvm-md", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut, unlock: stackedConfig,
		config: "HOSTONLY=no CONF=\n" + dracut,
		files:  lvmLocks,
		disks:  []int64{64, 64, 64}, boots: []boot{makeStacked, readStacked, readStacked},
	},
	{
		Name: "lvm-md-busybox", suite: "trixie", packages: trixieDracut, rebuild: rebuildDracut, unlock: stackedConfig,
		config: "HOSTONLY=no CONF='" + noSystemd + "'\n" + dracut,
		files:  lvmLocks,
		disks:  []int64{64, 64, 64}, boots: []boot{makeStacked, readStacked},
	},
}

// person is how long people take to begin to type. The agent of systemd shows its
// question before it turns the echo off.
const person = 3 * time.Second

// What is encrypted and written.
const (
	passphrase = "correct horse battery staple 0123456789"
	fileText   = "kept across boots"
)

// keyConfig begins every configuration.
const keyConfig = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`

// usualConfig has a volume on a disk and one in a file. The root file system
// forgets between boots what is written to it, so the second is always made anew.
const usualConfig = keyConfig + `
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
[[volume]]
name       = "infile"
device     = "file:/var/lib/infile"
size       = "48MiB"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/infile"
`

// twice is a first boot, which formats and writes, and a second, which reads;
// check is what else holds after both.
func twice(check string) []boot {
	const opened = `
for v in secretfs infile; do
	cryptsetup status $v
	test "$(findmnt -no SOURCE,FSTYPE /mnt/$v | tr -s ' ')" = "/dev/mapper/$v ext4"
	udevadm info /dev/mapper/$v
	active dev-mapper-$v.device mnt-$v.mount
done
`
	return []boot{
		{script: opened + check + "echo '" + fileText + "' >/mnt/secretfs/file"},
		{script: opened + check + "cat /mnt/secretfs/file", want: []string{fileText}},
	}
}

// denied is a boot that KMS refuses a key; stop is what then ends the machine, and
// stops how the console tells of it.
func denied(stop, stops string) boot {
	return boot{append: stop, fault: "kms-denied", want: []string{"AccessDenied", "hint: ", stops}}
}

const skippedText = "skipped (rd.unlock=0)"

// skipped is a boot without volumes, on request.
var skipped = boot{append: "rd.unlock=0", want: []string{skippedText}, script: `
cat /proc/mounts
test "$(ls /dev/mapper)" = control
`}

// luksFormat makes volumes as an image builder does.
const luksFormat = `
set +x # the console must not show it
printf '%s' '` + passphrase + `' >/run/key
set -x
luks_format() { # DEVICE OPTION...
	cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file /run/key "$@"
}
`

// withNetwork has the image raise the network before each boot.
func withNetwork(boots []boot) []boot {
	for i := range boots {
		boots[i].append += " ip=dhcp rd.neednet=1"
		boots[i].want = append(boots[i].want, "configured already")
	}
	return boots
}

// The root file system on a volume that unlock opens, and a recovery passphrase
// that people type, through systemd's agent on the console.
const (
	rootConfig = keyConfig + `
[[volume]]
name       = "system"
device     = "/dev/nvme0n1"
on_failure = "prompt"
`
	question = "Recovery passphrase for volume system:"
	onVolume = `
cryptsetup status system
test "$(findmnt -no SOURCE /)" = /dev/mapper/system
`
)

// lvmLocks mends a race of Debian 13's own. lvm2-monitor.service makes a lock in
// /run/lock/lvm, and fails when run-lock.mount, after which it is not ordered, covers
// that directory just then.
var lvmLocks = []string{"/etc/systemd/system/lvm2-monitor.service.d/locks.conf=[Unit]\nRequiresMountsFor=/run/lock\n"}

// LUKS on a logical volume and on an array, which the image's own means activate. The
// array has its superblock at the end, so that each member begins like the array.
const (
	stackedConfig = keyConfig + `
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

var makeStacked = boot{append: "rd.unlock=0", want: []string{skippedText}, script: luksFormat + `
pvcreate -q -y /dev/nvme0n1
vgcreate -q vault /dev/nvme0n1
lvcreate -q -y -n secret -l 100%FREE vault
mdadm --create /dev/md/files --run --level=1 --raid-devices=2 --metadata=1.0 --assume-clean --uuid=` + arrayUUID + ` /dev/nvme1n1 /dev/nvme2n1
fill() { # NAME DEVICE OPTION...
	name=$1 device=$2
	shift
	luks_format "$@"
	cryptsetup open --key-file /run/key $device $name
	mke2fs -q -t ext4 /dev/mapper/$name
	mount /dev/mapper/$name /mnt
	echo "` + fileText + `, in $name" >/mnt/file
	umount /mnt
	cryptsetup close $name
}
fill onlv /dev/vault/secret
fill onmd /dev/md/files --uuid ` + luksUUID + `
`}

var readStacked = boot{
	append: "rd.lvm.lv=vault/secret rd.md.uuid=" + arrayUUID, want: []string{fileText + ", in onlv", fileText + ", in onmd"},
	script: `
for v in onlv onmd; do
	test "$(findmnt -no SOURCE,FSTYPE /mnt/$v | tr -s ' ')" = "/dev/mapper/$v ext4"
	cat /mnt/$v/file
	active mnt-$v.mount
done
cryptsetup status onlv | grep 'device: */dev/mapper/vault-secret'
cryptsetup status onmd | grep 'device: */dev/md'
cat /proc/mdstat
`,
}

// up is what holds of a system that is up, in sh. The network must be there by the
// distribution's own means: one address and one default route, both by DHCP.
const up = `
active() { for unit in "$@"; do systemctl is-active "$unit"; done; }
active multi-user.target getty.target serial-getty@ttyS0.service
systemctl list-jobs
test -z "$(systemctl list-jobs --no-legend | grep -E 'device|mount|crypt')"
systemctl --failed
for unit in $(systemctl --failed --no-legend --plain | cut -d' ' -f1); do journalctl -b -o cat -u "$unit"; done
test -z "$(systemctl --failed --no-legend)"
/lib/systemd/systemd-networkd-wait-online --timeout=60
ip address
ip route
test "$(ip -o -4 address show scope global | wc -l)" = 1
ip -o -4 address show scope global | grep -q dynamic
test "$(ip route show default | wc -l)" = 1
ip route show default | grep -q 'proto dhcp'
test -z "$(ip route | grep -v proto)"
test "$(cat /proc/sys/net/ipv6/conf/e*/disable_ipv6)" = 0
systemd-analyze time
systemd-analyze critical-chain >/run/chain
cat /run/chain
test -z "$(grep -E 'dev-mapper-(secretfs|infile|on)|unlock' /run/chain)"
`
