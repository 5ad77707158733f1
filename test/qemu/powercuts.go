package main

import (
	"time"

	"unlock/test/lab"
)

// powercuts is power that fails while a volume is lab.Formatted. No boot after it
// needs a human.
var powercuts = []lab.Scenario{
	{
		Name: "half-lab.Formatted", Config: volume(headerKey, "ext4", atSecretfs), Disks: blank(2),
		Boots: []lab.Boot{
			{Cut: "unlock: key header"},
			{Cut: "unlock: key header", After: 250 * time.Millisecond},
			{Cut: "unlock: key header", After: 500 * time.Millisecond},
			{Cut: "unlock: key header", After: 750 * time.Millisecond},
			{Cut: "unlock: key header", After: time.Second},
			{Script: "write_stripe", Check: lab.Formatted},
			{Script: "read_stripe", Want: []string{lab.FileText}},
		},
	},
	cutAt("cut-begun", lab.WrittenFrom(0)),
	cutAt("cut-forming", lab.State("forming")),
	cutAt("cut-formed", lab.State("formed")),
	cutAt("cut-mkfs", lab.WrittenFrom(lab.PayloadOffset)),
}

// cutAt is a stripe whose formatting stops at a point.
func cutAt(name string, at lab.Mark) lab.Scenario {
	return lab.Scenario{
		Name: name, Config: volume(headerKey, "ext4", atSecretfs), Disks: blank(2),
		Boots: []lab.Boot{
			{CutAt: at, Check: lab.NeverReady},
			{Script: "write_stripe", Check: lab.Formatted},
			{Script: "read_stripe", Want: []string{lab.FileText}},
		},
	}
}
