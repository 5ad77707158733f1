package main

import (
	"errors"

	"unlock/test/vm"
)

// volumes is what lies on other than instance-store disks, what the system puts on
// a volume, and a passphrase that people type.
var volumes = []scenario{
	{
		name: "file-backed", keepRoot: true,
		config: s3Key + `
[[volume]]
name       = "secretfs"
device     = "file:/var/secretfs"
size       = "48MiB"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`,
		boots: []boot{
			// The file's blocks, of 512 bytes, are all allocated.
			{script: writeFile + `test "$(stat -c '%a %u %s' /var/secretfs)" = "600 0 50331648" && test "$(stat -c %b /var/secretfs)" -ge 98304`},
			{script: readFile, want: []string{fileText}, check: oneDecrypt},
		},
	},
	{
		name: "lvm-on-top", disks: []string{"blank:96"},
		config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"instance-store\"\nformat = \"blank\"\n",
		boots: []boot{
			{script: "crypt secretfs" + startUdev + `
pvcreate -q /dev/mapper/secretfs
vgcreate -q data /dev/mapper/secretfs
lvcreate -q -n files -L 32M data
mke2fs -q -t ext4 /dev/data/files
mount /dev/data/files /mnt
echo "` + fileText + `" >/mnt/file
umount /mnt
`, check: formatted},
			{script: "crypt secretfs" + startUdev + "vgchange -ay data; pvs; mount /dev/data/files /mnt; cat /mnt/file", want: []string{fileText, "/dev/mapper/secretfs data"}},
		},
	},
	{
		// A virtio disk says nothing of itself; IMDS does.
		name: "ebs-by-name", disks: []string{"blank:virtio:other"}, mapping: map[string]string{"ebs1": "sdc"}, append: "rd.unlock.timeout=20s",
		config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"ebs:/dev/sdc\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n" + atSecretfs,
		boots: []boot{
			{script: writeFile, check: formatted},
			{script: readFile, want: []string{fileText}},
			{faults: []string{"imds-off"}, want: []string{"which disk is which", "exit status 1"}},
		},
	},
	{
		name: "prompt", config: volume(s3Key, "ext4", atSecretfs, `on_failure = "prompt"`), disks: blank(1),
		boots: []boot{
			{script: writeFile, check: formatted},
			{
				faults: []string{"kms-denied"}, append: "rd.unlock.timeout=15s", script: readFile, want: []string{"AccessDenied", "hint: ", fileText}, check: nothingShown,
				typed: []vm.Typed{{When: question, Text: "wrong " + passphrase + "\n"}, {When: question, Text: passphrase + "\n"}},
			},
		},
	},
}

const question = "Recovery passphrase for volume secretfs:"

// startUdev is what a system does before it looks for its volume groups.
const startUdev = `
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle
`

// nothingShown checks that the console keeps the passphrase to itself.
func nothingShown(l *lab) error {
	if l.console.Contains(passphrase) {
		return errors.New("the console shows the passphrase")
	}
	return nil
}
