package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// swapped is what is on disks that are not what they seem, or not what they were.
var swapped = []lab.Scenario{
	{
		Name: "zapped-table", Config: s3Key + secretfs, Disks: []string{"zapped"},
		Boots: []lab.Boot{{Want: []string{"it holds data at byte 1049", "hint: only blank disks are formatted", "exit status 1"}, Check: lab.NoFrames}},
	},
	{
		Name: "converted-luks1", Disks: []string{"converted"},
		Config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"instance-store\"\n",
		Boots: []lab.Boot{
			{Script: "fill_each secretfs\nmaps_with secretfs aes-cbc-essiv:sha256"},
			{Script: "show_each secretfs", Want: []string{"in secretfs"}},
		},
	},
	{
		// The second disk is a copy of the first, as a snapshot's volume is.
		Name: "clone", Config: s3Key + secretfs, Disks: blank(2),
		Boots: []lab.Boot{
			{Attach: []int{0}, Script: "write_file", Check: copyDisk},
			{Want: []string{"they are copies of one LUKS volume", "hint: a snapshot may have been attached", "exit status 1"}},
			{Attach: []int{1}, Script: "read_file", Want: []string{lab.FileText}},
		},
	},
	{
		// While the key is awaited, another disk takes the place of the one that was to be
		// formatted, its name and its serial number.
		Name: "swapped-disk", Disks: []string{"blank", "luks2"}, Faults: []string{"imds-503"}, Append: "rd.unlock.timeout=3m",
		Config: s3Key + "[[volume]]\nname = \"secretfs\"\ndevice = \"serial=AWS0123456789ABCDEF0\"\nformat = \"blank\"\nfilesystem = \"ext4\"\n",
		Machine: func(l *lab.Lab, m *vm.Machine) {
			m.Disks[0].Late, m.Disks[1].Late = "waiting for device", "never"
			m.Timeout = 6 * time.Minute
			m.Events = []vm.Event{
				{When: formatsIt, Do: []vm.Request{vm.Unplug(0)}},
				{When: formatsIt, After: 25 * time.Second, Do: []vm.Request{m.PlugInstead(1, 0)}},
				{When: formatsIt, After: 40 * time.Second, Call: func(context.Context) error { return l.Cloud.SetFaults() }},
			}
		},
		Boots: []lab.Boot{{Want: []string{"replaced", "exit status 1"}}},
	},
}

// formatsIt is on the console when it is planned to.
const formatsIt = `unlock: volume "secretfs": format`

// copyDisk makes the second disk a copy of the first.
func copyDisk(l *lab.Lab) error {
	b, err := os.ReadFile(l.Drives[0].File)
	if err != nil {
		return err
	}
	return os.WriteFile(l.Drives[1].File, b, 0o600)
}

// stalls are disks that answer nothing any more once the plan is made, with the time
// limit that AWS has the kernel give EBS: for ever.
var stalls = []lab.Scenario{
	stall("disk-stalls", "", "exit status 1"),
	stall("disk-stalls-reboot", `on_failure = "reboot"`, "rebooting in"),
}

const stallTimeout = 15 * time.Second

func stall(name, setting, end string) lab.Scenario {
	return lab.Scenario{
		Name: name, Config: volume(s3Key, "ext4", atSecretfs, setting), Disks: blank(1),
		Append: fmt.Sprintf("rd.unlock.timeout=%s nvme_core.io_timeout=4294967295", stallTimeout),
		Machine: func(_ *lab.Lab, m *vm.Machine) {
			m.Timeout = 8 * time.Minute
			m.Events = []vm.Event{{When: planKnown, Do: []vm.Request{vm.Stall(0)}}}
		},
		Boots: []lab.Boot{{Want: []string{"nvme0n1 did not answer within the deadline", "hint: look at the kernel's messages for the disk", end}, Check: heldDeadline}},
	}
}

// heldDeadline checks that the boot was ended within 5 s of the deadline.
func heldDeadline(l *lab.Lab) error {
	var from, to time.Duration
	for _, line := range l.Console {
		if from == 0 && strings.Contains(line.Text, planKnown) {
			from = line.At
		}
		if to == 0 && strings.Contains(line.Text, "did not answer") {
			to = line.At
		}
	}
	l.Note("given up %.1f s after the plan, deadline %.0f s", (to - from).Seconds(), stallTimeout.Seconds())
	if to-from > stallTimeout+5*time.Second {
		return fmt.Errorf("given up %v after the plan, with a deadline of %v", to-from, stallTimeout)
	}
	return nil
}
