package main

import (
	"context"

	"unlock/test/lab"
)

// enforcing is Debian with its own SELinux policy, enforced from the start: labels are as
// the policy has them, nothing is denied because of a volume, and a confined service
// writes to directories that lie on one. Debian's root has no /srv/cache.
var enforcing = lab.Scenario{
	Name: "selinux", Disks: blank(1),
	Config: fileKey + secretfs + `
[[volume.bind]]
path = "/var/log/nginx"
seed = true
[[volume.bind]]
path = "/var/lib/nginx"
from = "nginx-state"
[[volume.bind]]
path = "/etc/apt"
seed = true
[[volume.bind]]
path = "/srv/cache"
`,
	System: labelled(installed{System: trixieSELinux, Generator: dracut("no", ""), files: gently}),
	Append: "security=selinux enforcing=1",
	Boots: []lab.Boot{
		{Script: "confined_writes\nnothing_denied", Check: noStopJob},
		{Script: "confined_writes\nnothing_denied\ncat /var/log/nginx/kept", Want: []string{lab.FileText}, Check: noStopJob},
	},
}

// labelled is a system whose files have the labels of its policy. Whoever installs it
// reboots twice for that.
func labelled(i installed) lab.System {
	return func(ctx context.Context, l *lab.Lab) error {
		if err := i.machine(ctx, l); err != nil {
			return err
		}
		l.Up = "set -x" // the policy keeps Debian's own networkd from much
		return lab.Command(ctx, "", "unshare", "--mount", "--propagation=private", "sh", "-euc",
			`mount -o loop "$1" /mnt
			chroot /mnt setfiles -F -e /proc -e /sys /etc/selinux/default/contexts/files/file_contexts /
			umount /mnt`, "sh", l.Base.Root)
	}
}
