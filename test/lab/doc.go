// Package lab puts together a simulated EC2, disks and a machine, boots the machine
// as a scenario says, and judges what the console, the disks and the cloud saw. All
// that boots in QEMU goes through it: scripts/qemu-test and the demonstration.
//
// A scenario is a declaration:
//
//	{
//		Name: "stripe-reordered", Config: volume(s3Key, "ext4", atSecretfs), Disks: blank(3),
//		Boots: []lab.Boot{
//			{Script: "write_stripe"},
//			{Attach: []int{2, 0, 1}, Script: "read_stripe", Want: []string{lab.FileText}},
//		},
//	},
//
// It goes into one of the tables in test/qemu, each of which main.go gives to a
// group; a fault of the cloud is one line in the tables of faults_*.go. Nothing else
// has to know of it. What a boot leaves out must not happen: without a Script it has
// to stop with a hint, and leave every disk bit-identical.
//
// The Script is shell that runs when the system is up: a command a line, in plain
// words. What takes more is a function in test/qemu/guest/*.sh, where shellcheck sees
// it, or in guest.sh beside this file, if it is of use everywhere. What takes Go is a
// function next to the table, in one of the places kept for it:
//
//	Boot.Before    before a boot: change disks, keys, the root (PutOnRoot)
//	Boot.Check     after a boot: judge disks (Formatted), requests (Answered), the root (ReadRoot), the status (BootStatus)
//	Boot.Machine   another machine: memory, clock, cards, errors of disks, no Initrd;
//	               vm.Event for what befalls it: a stalled disk, a pulled cable, any Go code
//	Boot.CutAt     power fails once something is on a disk
//	Scenario.System  another system than the standalone image's: see test/qemu/distributions.go, ami.go, arm64.go
package lab
