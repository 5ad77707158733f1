package main

import (
	"strings"

	"unlock/test/lab"
	"unlock/test/vm"
)

// machineFaults are those of disks and memory.
var machineFaults = []row{
	{name: "disk-missing", config: volume(s3Key, "ext4", atSecretfs, "count = 2"), stop: "attach the missing disks"},
	{name: "disk-late", config: volume(s3Key, "ext4", atSecretfs, "count = 2"), disks: blank(2), late: "unlock: network:", script: "write_stripe",
		reports: "unlock: network:"},
	{name: "disk-unreadable", disks: []string{"blank:read-errors"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-unreadable-of-two", config: volume(s3Key, "ext4", atSecretfs), disks: []string{"blank", "blank:read-errors"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-unwritable", disks: []string{"blank:write-errors"}, stop: "look at the kernel's messages for the disk"},
	// A disk that says that it is read-only, and one that only does not write.
	{name: "disk-read-only", disks: []string{"blank:virtio:other:read-only"}, stop: "attach the disk so that it can be written to",
		config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"/dev/vdc\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n" + atSecretfs},
	{name: "disk-not-writing", disks: []string{"blank:read-only"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-foreign", disks: []string{"ext4"}, stop: "only blank disks are formatted"},
	{name: "root-full", disks: []string{}, stop: "the root file system must be writable",
		config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"file:/var/secretfs\"\nsize = \"4GiB\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n" + atSecretfs},
	// The boot stops with the same word if nothing is opened: the PCR must be extended all the same.
	{name: "tpm-none", config: strings.Replace(s3Key, "[key.context]", "attest = true\n[key.context]", 1) + secretfs, stop: "launch the instance from an image that was registered with --tpm-support v2.0 --boot-mode uefi", reports: "there is no TPM"},
	{name: "memory-256-mib", machine: func(_ *lab.Lab, m *vm.Machine) { m.Memory = 256 }, reports: planKnown},
}
