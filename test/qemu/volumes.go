package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"unlock/internal/fsys"
	"unlock/test/lab"
)

// volumes is what becomes of the file system on a volume: how it is made, checked and
// mounted, whose it is, and the directories of the system that lie on it.
var volumes = []lab.Scenario{
	{
		Name: "binds", Disks: blank(1),
		Config: volume(s3Key, "ext4", atSecretfs, `owner = "daemon:34"`, `mode = "0711"`, `mkfs_options = "-m 0 -L data"`,
			`mount_options = "defaults,nofail,noatime,x-gvfs-hide"`, `absent = "allow"`,
			`[[volume.bind]]`, `path = "/var/lib/containerd"`,
			`[[volume.bind]]`, `path = "/etc/cron.daily"`, `from = "state/cron"`, `seed = true`),
		Boots: []lab.Boot{
			{Script: "binds_made\nshow_status", Want: []string{"copying what is in /etc/cron.daily"}, Check: lab.All(lab.Formatted, checked(""))},
			{Script: "binds_kept\nshow_status", Want: []string{lab.FileText}, Check: checked(fsys.Recovered)},
			{Append: "rd.unlock=0", Script: "binds_covered", Want: []string{skippedText}},
			{Attach: []int{}, Script: "binds_covered"},
		},
	},
	{
		// What would fail when the disk is formatted already is found before.
		Name: "bad-options", Config: s3Key + secretfs + "mount_options = \"noatime,nofial\"\n", Disks: blank(1),
		Mistake: `unlock.toml:16: ext4 has no mount option "nofial"`,
		Boots:   []lab.Boot{{Want: []string{`/etc/unlock.toml:16: ext4 has no mount option "nofial"`, "exit status 2"}, Check: lab.NoFrames}},
	},
	{
		Name: "seed-cut", Disks: []string{"blank:400"},
		Config: volume(headerKey, "ext4", atSecretfs, `[[volume.bind]]`, `path = "/usr/share"`, `seed = true`),
		Boots: []lab.Boot{
			{Cut: copyingShare},
			{Cut: copyingShare, After: time.Second},
			{Cut: copyingShare, After: 3 * time.Second},
			{Script: "seeded"},
			{Script: "seeded"},
		},
	},
	{
		Name: "fsck", Config: volume(s3Key, "ext4", atSecretfs), Disks: blank(1),
		Boots: []lab.Boot{
			{Script: "spoil_counts"},
			{Script: "mounted secretfs\nspoil_root\nshow_status", Check: checked(fsys.Repaired)},
			{Cut: "hint: boot once with fsck.repair=yes", Want: []string{fsys.ErrDamaged.Error()}},
			{Append: "fsck.repair=yes", Script: "mounted secretfs\nshow_status", Check: checked(fsys.Repaired)},
			{Append: "fsck.mode=skip", Script: "mounted secretfs\nshow_status", Check: checked(fsys.NotChecked + ": fsck.mode=skip")},
			{Append: "fsck.mode=force", Script: "mounted secretfs"},
		},
	},
	{
		Name: "xfs-stripe", Disks: []string{"blank:600", "blank:600"},
		Config: volume(headerKey, "xfs", atSecretfs, `mkfs_options = "-K -L data -i maxpct=10"`, `mount_options = "noatime,logbsize=64k,prjquota,nodev"`),
		Boots: []lab.Boot{
			{Script: "mounted_with /mnt/secretfs xfs rw,nodev,noatime\nxfs_as_wanted\nwrite_kept", Check: lab.Formatted},
			{Script: "read_as xfs", Want: []string{lab.FileText}},
		},
	},
	{
		// As the recipe makes it: in a file, with a journal.
		Name: "ext3", KeepRoot: true,
		Config: s3Key + `
[[volume]]
name         = "secretfs"
device       = "file:/secretfs"
size         = "64MiB"
format       = "blank"
filesystem   = "ext3"
mkfs_options = "-j"
mount        = "/mnt/secretfs"
`,
		Boots: []lab.Boot{
			{Script: "write_as ext3"},
			{Script: "read_as ext3\nshow_status", Want: []string{lab.FileText}, Check: checked(fsys.Clean)},
		},
	},
	{
		// An EBS volume that is enlarged, with ext3; and project quotas of ext4, for which it
		// is made.
		Name: "ext3-grows", Disks: []string{"blank:64:other", "blank"},
		Config: s3Key + `
[[volume]]
name       = "secretfs"
device     = "serial=` + lab.OtherSerial + `"
format     = "blank"
filesystem = "ext3"
mount      = "/mnt/secretfs"
grow       = true
[[volume]]
name          = "quotas"
device        = "instance-store"
format        = "blank"
filesystem    = "ext4"
mkfs_options  = "-O project,quota"
mount         = "/mnt/quotas"
mount_options = "prjquota"
`,
		Boots: []lab.Boot{
			{Script: "write_as ext3\nhas_quotas"},
			{Before: enlarge(128), Script: "has_grown_to 128\nread_as ext3\nhas_quotas", Want: []string{"its file system has grown", lab.FileText}},
		},
	},
	{
		// Likewise with ext4, and what is bound grows with it.
		Name: "binds-grow", Disks: []string{"blank:64:other"},
		Config: strings.Replace(volume(headerKey, "ext4", atSecretfs, "grow = true", "[[volume.bind]]", `path = "/var/lib/containerd"`,
			"[[volume.bind]]", `path = "/etc/cron.daily"`, "seed = true"), "instance-store", "serial="+lab.OtherSerial, 1),
		Boots: []lab.Boot{
			{Script: "write_bound"},
			{Before: enlarge(128), Script: "has_grown_to 128\nbound_has_grown", Want: []string{"its file system has grown", lab.FileText}},
			{Script: "has_grown_to 128\nbound_has_grown\nshow_status", Want: []string{lab.FileText}, Check: checked(fsys.Clean)},
		},
	},
	{
		Name: "shares", Disks: blank(2), Tool: true, Config: s3Key + divided + shareOf("cache", `size = "40%"`) + shareOf("db"),
		Boots: []lab.Boot{
			{Script: "write_shares", Check: lab.Formatted},
			{Config: s3Key + divided + shareOf("cache", `size = "8GiB"`) + shareOf("db"), Script: "read_shares", Want: []string{"cache: " + lab.FileText, "db: " + lab.FileText}, Check: lab.OneDecrypt},
			{Config: s3Key + divided + shareOf("cache"), Want: []string{"it was divided into the shares cache, db, and the configuration has cache", "exit status 1"}},
			{Script: "close_shares", Want: []string{"share of volume", `volume "secretfs" is closed`, "cache: " + lab.FileText, "db: " + lab.FileText}},
		},
	},
	{
		Name: "shares-cut", Disks: blank(2), Config: headerKey + divided + shareOf("cache", `size = "16MiB"`) + shareOf("db"),
		Boots: []lab.Boot{
			{CutAt: lab.State("forming"), Check: lab.NeverReady},
			{CutAt: lab.State("formed"), Check: lab.NeverReady},
			{CutAt: lab.WrittenFrom(lab.PayloadOffset + 1<<20), Check: lab.NeverReady},
			{Script: "write_shares", Check: lab.Formatted},
			{Script: "read_shares", Want: []string{"cache: " + lab.FileText, "db: " + lab.FileText}},
		},
	},
	{
		// What systemd makes of it.
		Name: "binds-systemd", Disks: blank(1),
		Config: fileKey + secretfs + "[[volume.bind]]\npath = \"/var/lib/containerd\"\n[[volume.bind]]\npath = \"/etc/apt\"\nseed = true\n",
		System: installed{System: trixieDracut, Generator: dracut("no", plainDisks), files: gently}.machine,
		Boots: []lab.Boot{
			{Script: "bound_units\nwrite_open\nshow_status", Check: lab.All(noStopJob, goesDown)},
			{Append: "rd.unlock=0", Script: "no_volumes", Check: lab.All(noStopJob, goesDown)},
			{Script: "bound_units\nread_open\nshow_status", Want: []string{lab.FileText}, Check: lab.All(noStopJob, goesDown, checked(fsys.Clean))},
		},
	},
	containers,
	enforcing,
}

// divided is a volume over all disks that is divided into shares.
const divided = `
[[volume]]
name   = "secretfs"
device = "instance-store"
format = "blank"
`

// shareOf is a share of it; more are settings, one a line.
func shareOf(name string, more ...string) string {
	return "[[volume]]\nname = \"" + name + "\"\ndevice = \"share:secretfs\"\nfilesystem = \"ext4\"\nmount = \"/mnt/" + name + "\"\n" + strings.Join(more, "\n") + "\n"
}

// containers is a node: containerd with its image store, and the directories of kubelet.
var containers = lab.Scenario{
	Name: "containerd", Disks: []string{"blank:600", "blank:600"},
	Config: strings.Replace(fileKey, "file:/etc/unlock/key.bin", "header", 1) + `
[[volume]]
name          = "k8s"
device        = "instance-store"
format        = "blank"
filesystem    = "xfs"
mount         = "/mnt/k8s-disks/0"
mount_options = "noatime,prjquota"
[[volume.bind]]
path = "/var/lib/containerd"
seed = true
[[volume.bind]]
path = "/var/lib/kubelet"
[[volume.bind]]
path = "/var/log/pods"
`,
	System: installed{System: trixieContainers, Generator: dracut("no", ""), files: gently}.machine,
	Boots: []lab.Boot{
		{Script: "node_directories\nimport_image\nrun_container first", Want: []string{"in a container: " + lab.FileText}, Check: noStopJob},
		{Script: "node_directories\nrun_container second", Want: []string{"in a container: " + lab.FileText, "pod's file: " + lab.FileText}, Check: noStopJob},
	},
}

// gently has the machine reboot as by hand, with its mounts unmounted.
var gently = []string{"/etc/systemd/system/scenario.service.d/gently.conf",
	"[Service]\nExecStart=\nExecStart=/bin/sh -c \"sed 's/poweroff -f -f/reboot/' /usr/local/sbin/scenario | sh\"\n"}

const copyingShare = "copying what is in /usr/share"

// checked judges what came of looking over the file system of the first volume.
func checked(want string) lab.Judge {
	return func(l *lab.Lab) error {
		b, err := l.BootStatus()
		if err != nil {
			return err
		}
		if len(b.Volumes) == 0 || b.Volumes[0].Check != want {
			return errors.New("the status is not that its file system was found to be " + want)
		}
		return nil
	}
}

// noStopJob: nothing kept the machine from going down, and no place of a volume stayed
// mounted. (Debian's own /run/lock may.)
func noStopJob(l *lab.Lab) error {
	for _, line := range l.Console {
		if strings.Contains(line.Text, "stop job is running") || strings.Contains(line.Text, "Failed unmounting") && !strings.Contains(line.Text, "run-lock") {
			return errors.New("the console shows " + line.Text)
		}
	}
	return nil
}

// goesDown holds how long machines took to go down against each other, those with volumes
// against those without. Both depend on the host, and a job that waits for its timeout
// takes minutes.
func goesDown(l *lab.Lab) error {
	var from, to time.Duration
	without := false
	for _, line := range l.Console {
		without = without || strings.Contains(line.Text, skippedText)
		if to = line.At; strings.Contains(line.Text, "script: exit 0") {
			from = line.At
		}
	}
	took, _ := l.Kept.(map[bool]time.Duration)
	if took == nil {
		took = map[bool]time.Duration{}
		l.Kept = took
	}
	took[!without] = max(took[!without], to-from)
	l.Note("down in %.1f s", (to - from).Seconds())
	if len(took) == 2 && took[true] > 3*took[false] {
		return fmt.Errorf("the machine goes down in %v with volumes, and in %v without", took[true], took[false])
	}
	return nil
}
