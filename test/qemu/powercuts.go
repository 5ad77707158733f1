package main

import (
	"strings"
	"time"

	"unlock/test/lab"
)

// powercuts is power that fails while a volume is formatted. No boot after it
// needs a human.
var powercuts = []lab.Scenario{
	{
		Name: "half-formatted", Config: volume(headerKey, "ext4", atSecretfs), Disks: blank(2),
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
	{
		// The last MiB is full of ciphertext whose key is gone.
		Name: "ephemeral-cut", Disks: blank(1),
		Config: strings.Replace(volume("[key]\nsource = \"ephemeral\"", "ext4", atSecretfs), `"blank"`, `"ephemeral"`, 1),
		Boots: []lab.Boot{
			{Script: "write_file\nfill_all secretfs"},
			{CutAt: lab.Renewed()},
			{Script: "is_new"},
		},
	},
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
