package main

import "time"

// powercuts is power that fails while a volume is formatted. No boot after it
// needs a human.
var powercuts = []scenario{
	{
		name: "half-formatted", config: volume(headerKey, "ext4", atSecretfs), disks: blank(2),
		boots: []boot{
			{cut: "unlock: key header"},
			{cut: "unlock: key header", after: 250 * time.Millisecond},
			{cut: "unlock: key header", after: 500 * time.Millisecond},
			{cut: "unlock: key header", after: 750 * time.Millisecond},
			{cut: "unlock: key header", after: time.Second},
			{script: writeStripe, check: formatted},
			{script: readStripe, want: []string{fileText}},
		},
	},
	cutAt("cut-begun", writtenFrom(0)),
	cutAt("cut-forming", state("forming")),
	cutAt("cut-formed", state("formed")),
	cutAt("cut-mkfs", writtenFrom(payloadOffset)),
}

// cutAt is a stripe whose formatting stops at a point.
func cutAt(name string, at mark) scenario {
	return scenario{
		name: name, config: volume(headerKey, "ext4", atSecretfs), disks: blank(2),
		boots: []boot{
			{cutAt: at, check: neverReady},
			{script: writeStripe, check: formatted},
			{script: readStripe, want: []string{fileText}},
		},
	}
}
