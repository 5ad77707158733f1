package main

import (
	"strings"

	"unlock/test/vm"
)

// Parts of configurations.
const (
	s3Key = `
[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	fileKey = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	headerKey = `
[key]
source  = "header"
kms_key = "$KEY"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	secretfs = `
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`
)

// prelude comes before each script: what holds for every volume that was opened.
const prelude = `
# crypt NAME: an active LUKS volume whose key the kernel does not give away
crypt() {
	cryptsetup status "$1" | grep -q 'is active'
	cryptsetup status "$1" | grep -q 'type: *LUKS'
	test -b "/dev/mapper/$1"
	dmsetup table --showkeys "$1"
	dmsetup table --showkeys "$1" | grep -q ':[0-9]*:logon:cryptsetup:'
}
# mounted NAME [TYPE]
mounted() { grep -q "^/dev/[^ ]* /mnt/$1 ${2-ext4} " /proc/mounts; }
stays_locked() { ! test -e "/dev/mapper/$1"; }
# Nothing of unlock's network is left: no address but lo's, no route, no card that is up.
if busybox ip -o addr | grep -v '^[0-9]*: lo '; then exit 1; fi
test "$(wc -l </proc/net/route)" -le 1
if grep -v ' lo$' /proc/net/ipv6_route; then exit 1; fi
for card in /sys/class/net/*; do
	test "$card" = /sys/class/net/lo || test $(($(cat "$card/flags") & 1)) = 0
done
# The real system's programs may dump core, as if there had been no initramfs.
test "$(ulimit -Hc)" = unlimited
if test -f /run/unlock/status.json; then grep -E '"(result|peak_rss_bytes|duration_ms)"' /run/unlock/status.json; fi
`

// Scripts that run after the pivot.
const (
	writeFile = `
crypt secretfs
mounted secretfs
echo "` + fileText + `" >/mnt/secretfs/file
umount /mnt/secretfs
`
	readFile = `
crypt secretfs
mounted secretfs
cat /mnt/secretfs/file
`
)

// standalone is what the standalone image has to do.
var standalone = []scenario{
	{
		name: "first-boot", config: s3Key + secretfs, disks: []string{"blank"},
		boots: []boot{{script: writeFile + "cat /proc/1/limits", check: formatted}},
	},
	{
		name: "second-boot", config: s3Key + secretfs, disks: []string{"blank"},
		boots: []boot{
			{script: writeFile, check: formatted},
			{script: readFile + stockOpen + "grep ' / ext4 rw,noatime' /proc/mounts", append: "root=UUID=" + vm.RootUUID + " rootfstype=ext4 rootflags=noatime", want: []string{fileText}},
		},
	},
	{
		// What is written through one tool's mapping is read through the other's.
		name: "stock-tools", config: s3Key + secretfs, disks: []string{"blank"},
		boots: []boot{
			{script: writeFile + `
cryptsetup close secretfs
printf '%s' "$PASSPHRASE" | cryptsetup open --key-file - /dev/nvme0n1 stock
mount /dev/mapper/stock /mnt
cat /mnt/file
echo "through cryptsetup" >/mnt/back
umount /mnt
cryptsetup close stock
`, want: []string{fileText}},
			{script: readFile + "cat /mnt/secretfs/back", want: []string{fileText, "through cryptsetup"}},
		},
	},
	{
		name: "blog-s3", plain: true, disks: []string{"luks1", "luks2"},
		config: `
[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "$KEY"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
[[volume]]
name   = "one"
device = "serial=AWS0123456789ABCDEF0"
[[volume]]
name   = "two"
device = "serial=AWS0123456789ABCDEF1"
`,
		boots: []boot{
			{script: "for v in one two; do crypt $v; mke2fs -q -t ext4 /dev/mapper/$v; mount /dev/mapper/$v /mnt; echo \"in $v\" >/mnt/file; umount /mnt; done"},
			{script: "for v in one two; do mount -o ro /dev/mapper/$v /mnt; cat /mnt/file; umount /mnt; done", want: []string{"in one", "in two"}},
		},
	},
	{
		name: "file-source", config: fileKey + secretfs, disks: []string{"blank"},
		boots: []boot{
			{script: writeFile, check: noRequest("s3")},
			{script: readFile, append: "root=/dev/vda", want: []string{fileText}},
		},
	},
	{
		name: "header-source", config: headerKey + secretfs, disks: []string{"blank"},
		boots: []boot{
			{script: writeFile, check: both(formatted, peakBelow(40e6))},
			{script: readFile, want: []string{fileText}, check: both(noRequest("s3"), peakBelow(40e6))},
		},
	},
	{
		name: "foreign-disk", config: s3Key + secretfs, disks: []string{"ext4"},
		boots: []boot{{want: []string{"ext4", "exit status 1"}, check: noFrames}},
	},
	{
		name: "kms-denied", config: s3Key + secretfs, disks: []string{"blank"}, faults: []string{"kms-denied"},
		boots: []boot{{want: []string{"AccessDenied", "$KEY", "exit status 1"}, check: answered("kms", 400)}},
	},
	{
		name: "no-role", config: s3Key + secretfs, disks: []string{"blank"}, faults: []string{"no-role"}, append: "rd.unlock.timeout=10s",
		boots: []boot{{want: []string{"role", "exit status 1"}, check: answered("imds", 404)}},
	},
	{
		name: "role-late", config: s3Key + secretfs, disks: []string{"blank"}, faults: []string{"role-late:5s"},
		boots: []boot{{script: writeFile, check: answered("imds", 404)}},
	},
	{
		name: "wrong-key-pinned", config: strings.Replace(s3Key, "$KEY", "$OTHER", 1) + secretfs, disks: []string{"blank"},
		boots: []boot{{want: []string{"$OTHER", "exit status 1"}, check: answered("kms", 400)}},
	},
	{
		name: "no-disks", config: s3Key + secretfs + "absent = \"allow\"\n",
		boots: []boot{{script: "grep '\"result\": \"nothing\"' /run/unlock/status.json; stays_locked secretfs", want: []string{"nothing to do"}, check: noFrames}},
	},
	{
		// Without panic= the machine stands still; it must not power off.
		name: "no-root", config: s3Key + secretfs, append: "panic=0 root=LABEL=nowhere",
		boots: []boot{{cut: "the boot stops here; reboot the instance", want: []string{"root=LABEL=nowhere", "vda", "exit status 1"}}},
	},
	{
		name: "two-disks", config: volume(s3Key, "ext4", `layout = "separate"`, "count = 2"), disks: blank(2),
		boots: []boot{
			{script: writeEach, check: both(formatted, oneDecrypt)},
			{script: readEach, want: []string{"read 2 volumes"}},
		},
	},
	{
		name: "udev-ready", config: s3Key + secretfs, disks: []string{"blank"},
		boots: []boot{{script: `
crypt secretfs
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle
udevadm info /dev/mapper/secretfs
if udevadm info /dev/mapper/secretfs | grep SYSTEMD_READY=0; then exit 1; fi
test -L /dev/disk/by-id/dm-name-secretfs
test "$(readlink -f /dev/mapper/secretfs)" = "$(readlink -f /dev/disk/by-id/dm-name-secretfs)"
`, want: []string{"DM_NAME=secretfs", "ID_FS_TYPE=ext4"}}},
	},
	{
		name: "fips", config: headerKey + secretfs, disks: []string{"blank"}, fips: true,
		boots: []boot{
			{script: writeFile, check: formatted},
			{script: readFile, want: []string{fileText}},
		},
	},
	{
		// Whatever it does, it can open this disk and no other (TestConfined), and not listen.
		name: "confined", disks: blank(2), append: "rd.unlock.debug",
		config: s3Key + strings.Replace(secretfs, "instance-store", "serial="+vm.Serial(1), 1),
		boots:  []boot{{script: writeFile + "if test -e /dev/unlock; then exit 1; fi", want: []string{"unlock: confined to [/dev/nvme1n1]"}}},
	},
	{
		name: "bad-config", config: s3Key + secretfs + "colour = \"red\"\n", disks: []string{"blank"}, mistake: "unlock.toml:16: unknown setting \"volume.colour\"",
		boots: []boot{{want: []string{"/etc/unlock.toml:16: unknown setting \"volume.colour\"", "exit status 2"}, check: noFrames}},
	},
}

// stockOpen opens the disk with nothing but cryptsetup and the passphrase.
const stockOpen = `
printf '%s' "$PASSPHRASE" | cryptsetup open --test-passphrase --key-file - /dev/nvme0n1
`
