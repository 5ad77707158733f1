package main

import (
	"time"

	"unlock/test/lab"
)

const oneMissing = "1 of the 2 disks of its mirror are missing or behind; unlockctl join secretfs adds one"

// mirrors are volumes that go on when a disk of theirs is gone.
var mirrors = []lab.Scenario{
	{
		Name: "mirror", Disks: blank(2), Tool: true, Config: volume(headerKey, "ext4", atSecretfs, `layout = "mirror"`, "count = 2"),
		Boots: []lab.Boot{
			{Script: "write_mirror raid1 2\nsize_is secretfs 44", Check: lab.Formatted},
			{Name: "a disk is gone", Attach: []int{1}, Script: "read_mirror 1\nwrite_later\nshow_status", Want: []string{lab.FileText, oneMissing, `"missing": 1`}, Check: lab.OneDecrypt},
			{Name: "it is back, behind", Script: "join_mirror", Want: []string{oneMissing, "a disk has joined its mirror"}},
			{Name: "without the other", Attach: []int{0}, Script: "read_mirror 1\nread_later", Want: []string{lab.FileText, oneMissing}},
			{Name: "and without it", Attach: []int{1}, Script: "read_mirror 1\nread_later", Want: []string{lab.FileText, oneMissing}},
			{Name: "both", Want: []string{"have gone on without each other", "exit status 1"}},
		},
	},
	{
		Name: "mirror-given-up", Disks: blank(2), Tool: true, Config: volume(headerKey, "ext4", atSecretfs, `layout = "mirror"`),
		Boots: []lab.Boot{
			{Script: "write_mirror raid1 2", Check: lab.Formatted},
			{Name: "the kernel goes on without a disk", Script: "give_up 1"},
			{Name: "that disk is left out", Script: "read_mirror 1\nread_later", Want: []string{lab.FileText, oneMissing, "the others of the mirror have gone on without it"}},
			{Name: "and joins again", Script: "join_mirror", Want: []string{"a disk has joined its mirror"}},
			{Name: "both", Script: "read_mirror 2\nread_later", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "mirror-given-up-alone", Disks: blank(2), Config: volume(headerKey, "ext4", atSecretfs, `layout = "mirror"`),
		Boots: []lab.Boot{
			{Script: "write_mirror raid1 2", Check: lab.Formatted},
			{Name: "the kernel goes on without a disk", Script: "give_up 1"},
			{Name: "that disk, alone", Attach: []int{1}, Script: "read_mirror 1", Want: []string{lab.FileText, oneMissing}},
			{Name: "both", Want: []string{"have gone on without each other", "exit status 1"}},
			{Name: "the one that went on", Attach: []int{0}, Script: "read_mirror 1\nread_later", Want: []string{lab.FileText, oneMissing}},
		},
	},
	{
		Name: "stripe+mirror", Disks: blank(4), Config: volume(headerKey, "ext4", atSecretfs, `layout = "stripe+mirror"`),
		Boots: []lab.Boot{
			{Script: "write_mirror raid10 4\nsize_is secretfs 88", Check: lab.Formatted},
			{Attach: []int{3, 0}, Script: "read_mirror 2", Want: []string{lab.FileText, "2 of the 4 disks of its mirror are missing or behind"}},
			{Attach: []int{0, 1}, Want: []string{"disks 3 to 4 of the mirror are missing", "exit status 1"}},
			{Script: "read_mirror 2", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "mirror-cut", Disks: blank(2), Config: volume(headerKey, "ext4", atSecretfs, `layout = "mirror"`),
		Boots: []lab.Boot{
			{CutAt: lab.State("forming"), Check: lab.NeverReady},
			{CutAt: lab.State("formed"), Check: lab.NeverReady},
			{CutAt: lab.WrittenFrom(lab.PayloadOffset), Check: lab.NeverReady},
			{CutAt: lab.WrittenFrom(lab.PayloadOffset + 4<<20), Check: lab.NeverReady},
			{Script: "write_mirror raid1 2", Check: lab.Formatted},
			{Script: "keep_writing", Cut: "writing now", After: 2 * time.Second},
			{Script: "read_mirror 2", Want: []string{lab.FileText}},
		},
	},
	mirrorIn("mirror-dracut", installed{System: trixieDracut, Generator: dracut("no", "")}),
	mirrorIn("mirror-initramfs-tools", installed{System: bookwormTools, Generator: initramfsTools}),
}

// mirrorIn is a mirror in a system whose generator takes along what opens it.
func mirrorIn(name string, system installed) lab.Scenario {
	return lab.Scenario{
		Name: name, Disks: blank(2), Config: fileKey + secretfs + "layout = \"mirror\"\ncount = 2\n", System: system.machine,
		Boots: []lab.Boot{
			{Script: "write_open", Check: lab.Formatted},
			{Name: "a disk is gone", Attach: []int{1}, Script: "read_open", Want: []string{lab.FileText, oneMissing}},
		},
	}
}
