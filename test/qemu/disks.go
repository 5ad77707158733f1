package main

import (
	"bytes"
	"context"
	"os"
	"slices"
	"strings"

	"unlock/test/ec2sim"
	"unlock/test/lab"
)

// volume returns a configuration with one volume on instance store; more are
// settings, one a line.
func volume(key, fs string, more ...string) string {
	lines := append([]string{key, "[[volume]]", `name = "secretfs"`, `device = "instance-store"`, `format = "blank"`, `filesystem = "` + fs + `"`}, more...)
	return strings.Join(lines, "\n") + "\n"
}

const atSecretfs = `mount = "/mnt/secretfs"`

// blank returns n blank disks.
func blank(n int) []string { return slices.Repeat([]string{"blank"}, n) }

// enlarge has the first disk so many MiB.
func enlarge(mib int64) lab.Step {
	return func(_ context.Context, l *lab.Lab) error { return os.Truncate(l.Images()[0], mib<<20) }
}

// attachedRules turns the rule for attached disks on, with the tool where by_hand puts it.
func attachedRules(ctx context.Context, l *lab.Lab) error {
	rules, err := os.ReadFile("systemd/attached.rules")
	if err != nil {
		return err
	}
	return l.PutOnRoot(ctx, "/etc/udev/rules.d/90-unlock.rules", bytes.Replace(rules, []byte("/usr/bin/"), []byte("/run/"), 1))
}

// disks is every layout of disks that people run, and what must not be lost on them.
var disks = []lab.Scenario{
	{
		Name: "stripe-4", Config: volume(headerKey, "ext4", atSecretfs), Disks: blank(4),
		Boots: []lab.Boot{
			{Script: "write_stripe", Check: lab.Formatted},
			{Script: "read_stripe", Want: []string{lab.FileText}, Check: lab.OneDecrypt},
		},
	},
	{
		Name: "stripe-unequal", Config: volume(with(s3Key, "[aws]", `endpoint.s3 = "https://s3-fips.us-east-1.amazonaws.com"`), "ext4", atSecretfs),
		Hosts: []string{"s3-fips.us-east-1.amazonaws.com"}, Disks: []string{"blank:64", "blank:100", "blank:80"},
		Boots: []lab.Boot{
			// Three times the smallest, less its header of 16 MiB.
			{Script: "write_stripe\nsize_is secretfs 144", Check: lab.Formatted},
			{Script: "read_stripe", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "stripe-missing-member", Config: volume(with(s3Key, "[aws]", `proxy = "`+ec2sim.ProxyURL+`"`), "ext4", atSecretfs), Disks: blank(3),
		Hosts: []string{"172.31.0.8"},
		Boots: []lab.Boot{
			{Script: "write_stripe"},
			{Attach: []int{0, 2}, Want: []string{"2 of 3 disks", "exit status 1"}},
			{Script: "read_stripe", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "stripe-reordered", Config: volume(strings.Replace(s3Key, `"$KEY"`, `["$OTHER", "$KEY"]`, 1), "ext4", atSecretfs), Disks: blank(3),
		Boots: []lab.Boot{
			{Script: "write_stripe"},
			{Attach: []int{2, 0, 1}, Script: "read_stripe", Want: []string{lab.FileText}},
		},
	},
	{
		// A clone of its disk does not open in another instance.
		Name: "named-context", Disks: blank(1),
		Config: with(headerKey, "[key]", `context = { host = "${region}/${account}/${instance-id}", volume = "${volume}" }`) + secretfs,
		Boots: []lab.Boot{
			{Machine: instance(1), Script: "write_file", Check: lab.Formatted},
			{Machine: instance(1), Script: "read_file", Want: []string{lab.FileText}, Check: lab.OneDecrypt},
			{Machine: instance(2), Want: []string{
				"InvalidCiphertextException", "made with context host=us-east-1/111122223333/i-0123456789abcde00, ", "volume=secretfs",
				"but the configuration gives host=us-east-1/111122223333/i-0123456789abcde01, ", "exit status 1",
			}},
		},
	},
	{
		Name: "separate-3", Config: volume(s3Key, "ext4", `layout = "separate"`), Disks: blank(3),
		Boots: []lab.Boot{
			{Script: "write_each", Check: lab.All(lab.Formatted, lab.OneDecrypt)},
			{Attach: []int{1, 2, 0}, Script: "read_each", Want: []string{"read 3 volumes"}},
		},
	},
	{
		Name: "late-disk", Config: volume(s3Key, "ext4", atSecretfs, "count = 2"), Disks: blank(2),
		Boots: []lab.Boot{
			{Late: "unlock: network:", Script: "write_stripe", Check: lab.Formatted},
			{Attach: []int{1, 0}, Late: "unlock: network:", Script: "read_stripe", Want: []string{lab.FileText}},
		},
	},
	{
		// The second boot has to find out that the root is xfs, whose module is loaded only then.
		Name: "root-volume", Disks: []string{"blank:400"}, Config: volume(s3Key, "xfs", atSecretfs),
		Boots: []lab.Boot{
			{Script: "crypt secretfs\nmounted secretfs xfs\ncopy_system"},
			{
				Config: s3Key + "[[volume]]\nname = \"cryptroot\"\ndevice = \"serial=AWS0123456789ABCDEF0\"\n",
				Append: "root=/dev/mapper/cryptroot",
				Script: "crypt cryptroot\nmounted_with / xfs rw",
			},
		},
	},
	{
		Name: "xfs", Config: volume(s3Key, "xfs", atSecretfs, `mount_options = "noatime,nodev"`, "discard = true"), Disks: []string{"blank:400"},
		Boots: []lab.Boot{
			{Script: "passes_discards secretfs\nmounted_with /mnt/secretfs xfs rw,nodev,noatime\nwrite_as xfs", Check: lab.Formatted},
			{Script: "passes_discards secretfs\nmounted_with /mnt/secretfs xfs rw,nodev,noatime\nread_as xfs", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "btrfs", Config: volume(s3Key, "btrfs", atSecretfs), Disks: []string{"blank:200"},
		Boots: []lab.Boot{
			{Script: "write_as btrfs", Check: lab.Formatted},
			{Script: "read_as btrfs", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "swap", Disks: []string{"gpt"},
		Config: strings.Replace(volume(s3Key, "swap"), `"instance-store"`, `"PARTUUID=`+lab.PartUUID+`"`, 1),
		Boots: []lab.Boot{
			{Script: "swaps", Want: []string{"/dev/dm-0"}},
			{Script: "swaps"},
		},
	},
	{
		// The disk comes when the system is up; the second boot finds it enlarged.
		Name: "open-close-grow", Disks: []string{"blank:other"}, Tool: true, Prepare: attachedRules,
		Config: strings.Replace(volume(headerKey, "ext4", atSecretfs, "grow = true", `absent = "allow"`), "instance-store", "serial="+lab.OtherSerial, 1),
		Boots: []lab.Boot{
			{
				Script: "open_attached", Late: "attach it now",
				Want: []string{
					"blank, and this is no boot", `volume "secretfs": already open`, "sleep)", `volume "secretfs" is closed`, `volume "secretfs" is not open`,
					"/dev/mapper/secretfs has grown from 33554432 to 50331648 bytes", "all that its disk has room for", lab.FileText,
				},
				Check: lab.Formatted,
			},
			{Before: enlarge(128), Script: "has_grown_to 128\nread_file", Want: []string{"its file system has grown", lab.FileText}},
		},
	},
	{
		Name: "ephemeral", Disks: blank(1),
		Config: strings.Replace(volume("[key]\nsource = \"ephemeral\"", "ext4", atSecretfs), `"blank"`, `"ephemeral"`, 1),
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.NoFrames},
			{Script: "is_new", Check: lab.NoFrames},
		},
	},
	{
		Name: "ephemeral-foreign", Disks: []string{"ext4"},
		Config: strings.Replace(volume("[key]\nsource = \"ephemeral\"", "ext4", atSecretfs), `"blank"`, `"ephemeral"`, 1),
		Boots:  []lab.Boot{{Want: []string{"ext4", "exit status 1"}, Check: lab.NoFrames}},
	},
	{
		Name: "optional-failed", Faults: []string{"s3-404"}, Disks: blank(1),
		Config: volume(s3Key, "ext4", atSecretfs, "required = false"),
		Boots: []lab.Boot{{
			Script: "covered secretfs",
			Want:   []string{"NoSuchKey", "hint: "}, Check: lab.Answered("s3", 404),
		}},
	},
}
