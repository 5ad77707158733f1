package main

import (
	"context"
	"strings"
	"time"

	"unlock/test/ec2sim"
	"unlock/test/lab"
	"unlock/test/vm"
)

// Parts of configurations; $KEY is the ARN of the lab's KMS key.
const (
	s3Key = `
[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	fileKey = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	ssmKey = `
[key]
source  = "ssm:/unlock/key"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	secretKey = `
[key]
source  = "secretsmanager:unlock/key"
kms_key = "$KEY"
[key.context]
purpose = "secretfs"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	headerKey = `
[key]
source  = "header"
kms_key = "$KEY"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
`
	secretfs = `
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`
)

// with adds settings, one a line, to a table of a configuration.
func with(config, table string, settings ...string) string {
	return strings.Replace(config, table+"\n", table+"\n"+strings.Join(settings, "\n")+"\n", 1)
}

// vpce is an interface endpoint that a VPC has of a service.
func vpce(service string) string {
	return "vpce-0a1b2c3d4e5f67890-abcdefgh." + service + ".us-east-1.vpce.amazonaws.com"
}

// standalone is what the standalone image has to do.
var standalone = []lab.Scenario{
	{
		Name: "first-boot", Config: s3Key + secretfs, Disks: []string{"blank"},
		Boots: []lab.Boot{{Script: "write_file\ncat /proc/1/limits\nshow_status", Check: lab.All(lab.Formatted, lab.TimeHasAName)}},
	},
	{
		Name: "second-boot", Config: "timeout = \"15m\"\n" + s3Key + secretfs, Disks: []string{"blank"}, System: lab.Standalone, Cloud: ec2sim.Config{RTT: roundTrip},
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{Secret: true, Script: "read_file\nstock_opens\nmounted_with / ext4 rw,noatime\nshow_status", Check: lab.OwnShare(roundTrip), Append: "root=UUID=" + vm.RootUUID + " rootfstype=ext4 rootflags=noatime maxcpus=1", Want: []string{lab.FileText}},
		},
	},
	{
		// What is written through one tool's mapping is read through the other's. The
		// passphrase is an earlier version of the object.
		Name: "stock-tools", Config: with(s3Key, "[key]", `version_id = "$VERSION"`) + secretfs, Disks: []string{"blank"}, Prepare: replaceObject,
		Boots: []lab.Boot{
			{Secret: true, Script: "write_file\nto_stock", Want: []string{lab.FileText}},
			{Script: "read_file\ncat /mnt/secretfs/back", Want: []string{lab.FileText, "through cryptsetup"}},
		},
	},
	{
		Name: "blog-s3", CLI: true, Disks: []string{"luks1", "luks2"},
		Config: `
[key]
source  = "s3://an-internalstoragekeybucket/LuksInternalStorageKey"
kms_key = "$KEY"
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
[[volume]]
name   = "one"
device = "serial=AWS0123456789ABCDEF0"
[[volume]]
name   = "two"
device = "LABEL=two"
`,
		Boots: []lab.Boot{
			{Script: "fill_each one two"},
			{Script: "show_each one two", Want: []string{"in one", "in two"}},
		},
	},
	{
		Name: "file-source", Config: fileKey + secretfs, Disks: []string{"blank"},
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.NoRequest("s3")},
			{Script: "read_file", Append: "root=/dev/vda", Want: []string{lab.FileText}},
		},
	},
	{
		Name: "header-source", Disks: []string{"blank"}, Hosts: []string{vpce("kms")},
		Config: with(headerKey, "[aws]", `endpoint.kms = "https://`+vpce("kms")+`"`, `endpoint.imds = "http://169.254.169.254"`) + secretfs,
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.All(lab.Formatted, lab.PeakBelow(24e6))},
			{Script: "read_file", Want: []string{lab.FileText}, Check: lab.All(lab.NoRequest("s3"), lab.PeakBelow(24e6))},
		},
	},
	{
		Name: "foreign-disk", Config: s3Key + secretfs, Disks: []string{"ext4"},
		Boots: []lab.Boot{{Want: []string{"ext4", "exit status 1"}, Check: lab.NoFrames}},
	},
	{
		Name: "kms-denied", Config: s3Key + secretfs, Disks: []string{"blank"}, Faults: []string{"kms-denied"},
		Boots: []lab.Boot{{Want: []string{"AccessDenied", "$KEY", "exit status 1"}, Check: lab.Answered("kms", 400)}},
	},
	{
		Name: "denied-reboots", Config: s3Key + secretfs + "on_failure = \"reboot\"\n", Disks: []string{"blank"}, Faults: []string{"kms-denied"},
		Boots: []lab.Boot{{Want: []string{"AccessDenied", "rebooting in", "reboot: Restarting system"}}},
	},
	{
		Name: "no-role", Config: s3Key + secretfs, Disks: []string{"blank"}, Faults: []string{"no-role"},
		Boots: []lab.Boot{{Deadline: 10 * time.Second, Want: []string{"role", "exit status 1"}, Check: lab.Answered("imds", 404)}},
	},
	{
		Name: "role-late", Config: s3Key + secretfs, Disks: []string{"blank"}, Faults: []string{"role-late:5s"},
		Boots: []lab.Boot{{Script: "write_file", Check: lab.Answered("imds", 404)}},
	},
	{
		Name: "wrong-key-pinned", Config: strings.Replace(s3Key, "$KEY", "$OTHER", 1) + secretfs, Disks: []string{"blank"},
		Boots: []lab.Boot{{Want: []string{"$OTHER", "exit status 1"}, Check: lab.Answered("kms", 400)}},
	},
	{
		Name: "no-disks", Config: s3Key + secretfs + "absent = \"allow\"\n",
		Boots: []lab.Boot{{Script: "nothing_done", Want: []string{"nothing to do"}, Check: lab.NoFrames}},
	},
	{
		// Without panic= the machine stands still; it must not power off.
		Name: "no-root", Config: s3Key + secretfs, Append: "panic=0 root=LABEL=nowhere",
		Boots: []lab.Boot{{Cut: "the boot stops here; reboot the instance", Want: []string{"root=LABEL=nowhere", "vda", "exit status 1"}}},
	},
	{
		Name: "two-disks", Disks: blank(2), Hosts: []string{vpce("ssm"), "kms.us-east-1.api.aws"},
		Config: volume(with(ssmKey, "[aws]", "dualstack = true", `region = "us-east-1"`, `endpoint.ssm = "https://`+vpce("ssm")+`"`),
			"ext4", `layout = "separate"`, "count = 2"),
		Boots: []lab.Boot{
			{Script: "write_each", Check: lab.All(lab.Formatted, lab.OneDecrypt)},
			{Script: "read_each", Want: []string{"read 2 volumes"}},
		},
	},
	{
		Name: "secret-source", Config: with(secretKey, "[aws]", `endpoint.secretsmanager = "https://`+vpce("secretsmanager")+`"`) + secretfs,
		Disks: []string{"blank"}, Hosts: []string{vpce("secretsmanager")},
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.All(lab.Formatted, lab.Answered("secretsmanager", 200))},
			{Script: "read_file", Want: []string{lab.FileText}, Check: lab.NoRequest("s3")},
		},
	},
	{
		Name: "udev-ready", Config: s3Key + secretfs, Disks: []string{"blank"},
		Boots: []lab.Boot{{Script: "crypt secretfs\nstart_udev\nudev_knows", Want: []string{"DM_NAME=secretfs", "ID_FS_TYPE=ext4"}}},
	},
	{
		Name: "fips", Config: with(headerKey, "[aws]", "fips = true") + secretfs, Disks: []string{"blank"}, System: lab.StandaloneFIPS,
		Hosts: []string{"kms-fips.us-east-1.amazonaws.com"},
		Boots: []lab.Boot{
			{Script: "write_file", Check: lab.Formatted},
			{Script: "read_file", Want: []string{lab.FileText}},
		},
	},
	{
		// Whatever it does, it can open this disk and no other (TestConfined), and not listen.
		Name: "confined", Disks: blank(2), Append: "rd.unlock.debug",
		Config: s3Key + strings.Replace(secretfs, "instance-store", "instance-store:1", 1),
		Boots:  []lab.Boot{{Script: "write_file\nabsent /dev/unlock", Want: []string{"unlock: confined to [/dev/nvme1n1]"}}},
	},
	{
		Name: "bad-config", Config: s3Key + secretfs + "colour = \"red\"\n", Disks: []string{"blank"}, Mistake: "unlock.toml:16: unknown setting \"volume.colour\"",
		Boots: []lab.Boot{{Want: []string{"/etc/unlock.toml:16: unknown setting \"volume.colour\"", "exit status 2"}, Check: lab.NoFrames}},
	},
}

// replaceObject puts something else in place of the ciphertext in S3.
func replaceObject(_ context.Context, l *lab.Lab) error {
	l.Cloud.PutObject(lab.Bucket, lab.Object, []byte("not a ciphertext"))
	return nil
}
