package main

import "unlock/internal/vm"

// machineFaults are those of disks and memory.
var machineFaults = []row{
	{name: "disk-missing", config: volume(s3Key, "ext4", atSecretfs, "count = 2"), stop: "attach"},
	{name: "disk-late", config: volume(s3Key, "ext4", atSecretfs, "count = 2"), disks: blank(2), late: "unlock: network:",
		reports: "unlock: network:"},
	{name: "disk-unreadable", disks: []string{"blank:read-errors"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-unreadable-of-two", config: volume(s3Key, "ext4", atSecretfs), disks: []string{"blank", "blank:read-errors"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-unwritable", disks: []string{"blank:write-errors"}, stop: "look at the kernel's messages for the disk"},
	{name: "disk-read-only", disks: []string{"blank:read-only"}, stop: "the disk is write-protected"},
	{name: "disk-too-small", disks: []string{"blank:8"}, stop: "the disk is too small"},
	{name: "disk-foreign", disks: []string{"ext4"}, stop: "only blank disks are formatted"},
	{name: "root-full", disks: []string{}, stop: "the root file system must be writable",
		config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"file:/var/secretfs\"\nsize = \"4GiB\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n" + atSecretfs},
	{name: "memory-256-mib", machine: func(m *vm.Machine) { m.Memory = 256 }, reports: planKnown},
}
