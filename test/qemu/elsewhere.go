package main

import (
	"time"

	"unlock/test/ec2sim"
	"unlock/test/lab"
	"unlock/test/vm"
)

// elsewhere is what lies on other than instance-store disks, what the system puts on
// a volume, and a passphrase that people type.
var elsewhere = []lab.Scenario{
	{
		Name: "file-backed", KeepRoot: true, Tool: true,
		Config: s3Key + `
[[volume]]
name       = "secretfs"
device     = "file:/var/secretfs"
size       = "48MiB"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`,
		Boots: []lab.Boot{
			{Script: "write_file\nallocated /var/secretfs 50331648"},
			{Script: "read_file", Want: []string{lab.FileText}, Check: lab.OneDecrypt},
			{Script: "reopen_file\nread_file", Want: []string{"secretfs: also on /etc/cron.daily", `volume "secretfs": already open /var/secretfs`, `volume "secretfs" is closed`, lab.FileText}},
		},
	},
	{
		Name: "lvm-on-top", Disks: []string{"blank:96"},
		Config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"instance-store\"\nformat = \"blank\"\n",
		Boots: []lab.Boot{
			{Script: "write_lvm", Check: lab.Formatted},
			{Script: "read_lvm", Want: []string{lab.FileText, "/dev/mapper/secretfs data"}},
		},
	},
	{
		// A virtio disk says nothing of itself; IMDS does.
		Name: "ebs-by-name", Disks: []string{"blank:virtio:other"}, Cloud: ec2sim.Config{BlockDevices: map[string]string{"ebs1": "sdc"}},
		Config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"ebs:/dev/sdc\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n" + atSecretfs,
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{Script: "read_file", Want: []string{lab.FileText}},
			{Deadline: 20 * time.Second, Faults: []string{"imds-off"}, Want: []string{"which disk is which", "exit status 1"}},
		},
	},
	{
		Name: "prompt", Config: volume(s3Key, "ext4", atSecretfs, `on_failure = "prompt"`), Disks: blank(1),
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{
				Faults: []string{"kms-denied"}, Deadline: 15 * time.Second, Script: "read_file", Want: []string{"AccessDenied", "hint: ", lab.FileText},
				Typed: []vm.Typed{{When: question, Text: "wrong " + lab.Passphrase + "\n"}, {When: question, Text: lab.Passphrase + "\n"}},
			},
		},
	},
}

const question = "Recovery passphrase for volume secretfs:"
