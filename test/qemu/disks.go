package main

import (
	"slices"
	"strings"
)

// volume returns a configuration with one volume on instance store; more are
// settings, one a line.
func volume(key, fs string, more ...string) string {
	lines := append([]string{key, "[[volume]]", `name = "secretfs"`, `device = "instance-store"`, `format = "blank"`, `filesystem = "` + fs + `"`}, more...)
	return strings.Join(lines, "\n") + "\n"
}

const atSecretfs = `mount = "/mnt/secretfs"`

// blank returns n blank disks.
func blank(n int) []string { return slices.Repeat([]string{"blank"}, n) }

// Scripts for volumes that are not one ext4 on one disk.
const (
	writeStripe = `
dmsetup table secretfs | grep -q ' striped '
mounted secretfs
echo "` + fileText + `" >/mnt/secretfs/file
umount /mnt/secretfs
`
	readStripe = `
dmsetup table secretfs | grep -q ' striped '
mounted secretfs
cat /mnt/secretfs/file
`
	writeEach = `
for node in /dev/mapper/secretfs?*; do
	v=${node##*/}
	crypt $v
	mount $node /mnt
	echo "in $v" >/mnt/file
	umount /mnt
done
`
	readEach = `
n=0
for node in /dev/mapper/secretfs?*; do
	mount -o ro $node /mnt
	grep -x "in ${node##*/}" /mnt/file
	umount /mnt
	n=$((n + 1))
done
echo "read $n volumes"
`
)

// disks is every layout of disks that people run, and what must not be lost on them.
var disks = []scenario{
	{
		name: "stripe-4", config: volume(headerKey, "ext4", atSecretfs), disks: blank(4),
		boots: []boot{
			{script: writeStripe, check: formatted},
			{script: readStripe, want: []string{fileText}, check: oneDecrypt},
		},
	},
	{
		name: "stripe-unequal", config: volume(s3Key, "ext4", atSecretfs), disks: []string{"blank:64", "blank:100", "blank:80"},
		boots: []boot{
			// Three times the smallest, less its header of 16 MiB.
			{script: writeStripe + "test $(blockdev --getsize64 /dev/mapper/secretfs) = $((3 * 48 * 1048576))", check: formatted},
			{script: readStripe, want: []string{fileText}},
		},
	},
	{
		name: "stripe-missing-member", config: volume(s3Key, "ext4", atSecretfs), disks: blank(3),
		boots: []boot{
			{script: writeStripe},
			{attach: []int{0, 2}, want: []string{"2 of 3 disks", "exit status 1"}},
			{script: readStripe, want: []string{fileText}},
		},
	},
	{
		name: "stripe-reordered", config: volume(s3Key, "ext4", atSecretfs), disks: blank(3),
		boots: []boot{
			{script: writeStripe},
			{attach: []int{2, 0, 1}, script: readStripe, want: []string{fileText}},
		},
	},
	{
		name: "separate-3", config: volume(s3Key, "ext4", `layout = "separate"`), disks: blank(3),
		boots: []boot{
			{script: writeEach, check: both(formatted, oneDecrypt)},
			{attach: []int{1, 2, 0}, script: readEach, want: []string{"read 3 volumes"}},
		},
	},
	{
		name: "late-disk", config: volume(s3Key, "ext4", atSecretfs, "count = 2"), disks: blank(2),
		boots: []boot{
			{late: "unlock: network:", script: writeStripe, check: formatted},
			{attach: []int{1, 0}, late: "unlock: network:", script: readStripe, want: []string{fileText}},
		},
	},
	{
		// The second boot has to find out that the root is xfs, whose module is loaded only then.
		name: "root-volume", disks: []string{"blank:400"}, config: volume(s3Key, "xfs", atSecretfs),
		boots: []boot{
			{script: `
crypt secretfs
mounted secretfs xfs
cd /
cp -a bin etc lib lib64 sbin usr /mnt/secretfs
mkdir /mnt/secretfs/dev /mnt/secretfs/proc /mnt/secretfs/sys /mnt/secretfs/run /mnt/secretfs/mnt
umount /mnt/secretfs
`},
			{
				config: s3Key + "[[volume]]\nname = \"cryptroot\"\ndevice = \"serial=AWS0123456789ABCDEF0\"\n",
				append: "root=/dev/mapper/cryptroot",
				script: "crypt cryptroot; grep '^/dev/mapper/cryptroot / xfs ' /proc/mounts",
			},
		},
	},
	{
		name: "xfs", config: volume(s3Key, "xfs", atSecretfs), disks: []string{"blank:400"},
		boots: []boot{
			{script: "crypt secretfs; mounted secretfs xfs; echo '" + fileText + "' >/mnt/secretfs/file; umount /mnt/secretfs", check: formatted},
			{script: "mounted secretfs xfs; cat /mnt/secretfs/file", want: []string{fileText}},
		},
	},
	{
		name: "btrfs", config: volume(s3Key, "btrfs", atSecretfs), disks: []string{"blank:200"},
		boots: []boot{
			{script: "crypt secretfs; mounted secretfs btrfs; echo '" + fileText + "' >/mnt/secretfs/file; umount /mnt/secretfs", check: formatted},
			{script: "mounted secretfs btrfs; cat /mnt/secretfs/file", want: []string{fileText}},
		},
	},
	{
		name: "swap", config: volume(s3Key, "swap"), disks: blank(1),
		boots: []boot{
			{script: "crypt secretfs; swapon /dev/mapper/secretfs; cat /proc/swaps; swapoff /dev/mapper/secretfs", want: []string{"/dev/dm-0"}, check: formatted},
			{script: "crypt secretfs; swapon /dev/mapper/secretfs"},
		},
	},
	{
		name: "ephemeral", disks: blank(1),
		config: strings.Replace(volume("[key]\nsource = \"ephemeral\"", "ext4", atSecretfs), `"blank"`, `"ephemeral"`, 1),
		boots: []boot{
			{script: writeFile, check: noFrames},
			{script: "crypt secretfs; mounted secretfs; if test -e /mnt/secretfs/file; then exit 1; fi", check: noFrames},
		},
	},
	{
		name: "ephemeral-foreign", disks: []string{"ext4"},
		config: strings.Replace(volume("[key]\nsource = \"ephemeral\"", "ext4", atSecretfs), `"blank"`, `"ephemeral"`, 1),
		boots:  []boot{{want: []string{"ext4", "exit status 1"}, check: noFrames}},
	},
	{
		name: "optional-failed", faults: []string{"s3-404"}, disks: blank(1),
		config: volume(s3Key, "ext4", atSecretfs, "required = false"),
		boots: []boot{{
			script: "stays_locked secretfs; if touch /mnt/secretfs/in-the-clear; then exit 1; fi",
			want:   []string{"NoSuchKey", "hint: "}, check: answered("s3", 404),
		}},
	},
}
