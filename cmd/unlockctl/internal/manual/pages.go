package manual

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"unlock/internal/fsys/fsopt"
)

// Names lists the pages.
func Names() []string { return []string{"unlock.8", "unlockctl.8", "unlock.toml.5"} }

// Page returns a page by its name; app is the model of unlockctl's command line.
func Page(name string, app *kong.Application) (string, bool) {
	switch name {
	case "unlock.8", "unlock":
		return unlockPage(), true
	case "unlockctl.8", "unlockctl":
		return unlockctlPage(app), true
	case "unlock.toml.5", "unlock.toml":
		return settingsPage(), true
	}
	return "", false
}

const files = `*/etc/unlock.toml*: the configuration, see unlock.toml(5). */run/unlock/status.json*: what the last boot did.`

func unlockPage() string {
	p := newPage("unlock", 8, "open and format LUKS volumes on EC2 before the system starts")
	p.section("Synopsis")
	p.para("*unlock*")
	p.para("*unlock early*")
	p.para("*unlock mount* NEWROOT")
	p.para("*unlock needs*")
	p.para("*unlock guard*")
	p.para("*unlock cap*")
	p.para("*unlock hold* [*unit*]")
	p.section("Description")
	p.para(`unlock runs once, in the initramfs of an EC2 instance. It raises the network, gets the credentials of the instance's role from IMDSv2, has AWS KMS decrypt a passphrase, opens the LUKS volumes that unlock.toml(5) names, and formats those that it may. Without arguments it does the volumes on disks; *mount* does those in files of the new root, and all mounts; *needs* lists what an initramfs must contain, for the builders of initramfs images. As process 1 of the standalone image it does all of it, and starts the system.`)
	p.para(`Devices are awaited beside the network: once the disks of a volume are there and would need a key, the network comes up and connections are opened; if there is none, nothing is sent. Nothing is decided and nothing written before devices have settled, which in an initramfs with udev is when *udevadm settle* ends. *early*, in the background, takes devices for settled when *unlock* is run beside it, which then waits for it and ends as it does.`)
	p.para(`A disk is formatted only if the configuration says so and the disk is blank. A disk that cannot be read is not blank. A wrong passphrase is never a reason to format.`)
	p.para(`*guard* runs in the real system, before its file systems are mounted: by unlock-guard.service, or an init script where there is no systemd. It looks whether the initramfs of this boot opened every required volume. If one is missing, because the image has no unlock or the kernel was booted without one, it says so and never returns, so that no service writes in the clear; with on_failure = "reboot" of all that are missing it reboots. It covers the mount points of other volumes that are missing by an empty read-only file system. With rd.unlock=0 it covers them all and returns.`)
	p.para(`*cap* runs in an initramfs before a shell is opened there, and *unlock mount* ends with the same: if a key is attested, PCR 13 is extended, with the event "unlock: key released", which is also written to /run/log/systemd/tpm2-measure.log where that is there. A key policy that wants PCR 13 to be as it was when unlock ran then gives nothing that runs later the key. It comes whatever became of the boot, also with rd.unlock=0; if it fails, the boot is held up.`)
	p.para(`*hold* runs in an initramfs with systemd, before what ends a failed boot there: it waits until the required volumes are open, has the boot begin again, and fails, so that what it ran before does not run; with *unit* it waits to be stopped with its unit instead. If they are open already it does what *cap* does.`)
	p.para(`A boot in which a required volume stays locked is held up: unlock repeats why every five minutes, tries again after about *retry_every*, and does not end until it succeeds. Where a shell was opened meanwhile, and keys are attested, it succeeds only after a reboot. As process 1 with *panic=* on the kernel command line, it reboots as that says.`)
	p.section("Kernel command line")
	p.para("Neither keys nor devices can be chosen here.")
	p.item("rd.unlock=0", "Do nothing.")
	p.item("rd.unlock.debug", "Print more, of the network each step of each card: link, lease, routes, name servers, IMDS, endpoints.")
	p.item("rd.unlock.timeout=DURATION", "The deadline of all that waits, such as 5m.")
	p.item("fsck.mode=MODE, fsck.repair=HOW", "As for systemd-fsck(8): *skip*, *auto* or *force*; *preen*, *yes* or *no*. They hold for ext3 and ext4 that are mounted.")
	p.section("What the subnet must offer")
	p.para("An address by DHCP with a router or routes (options 3 and 121), by router advertisements with DHCPv6, or both. IMDS: over IPv6, where there is no IPv4, it must be enabled (--http-protocol-ipv6 enabled). A name server: those of the lease, of the image's resolv.conf, 169.254.169.253 and fd00:ec2::253 are asked in turn, the next after 0.4 seconds of silence. A way to port 443 of KMS and of the ciphertext's service: a gateway, VPC endpoints, or *aws.proxy*. Packets of 1,280 bytes.")
	p.para("Cards are tried one after the other; one counts when IMDS answers through it, and the others help where it does not lead to an endpoint. A network that is there already is used, and left alone, if it reaches IMDS. All else is undone before the system starts.")
	p.section("Exit status")
	p.item("0", "Done, or nothing to do: no disk matches, and none must.")
	p.item("1", "A required volume stayed locked.")
	p.item("2", "The configuration is wrong.")
	p.section("Files")
	p.para(files)
	p.section("See also")
	p.para("unlockctl(8), unlock.toml(5), cryptsetup(8)")
	return p.String()
}

func settingsPage() string {
	p := newPage("unlock.toml", 5, "the volumes that unlock opens at boot")
	p.section("Description")
	p.para("A file in TOML. A setting that unlock does not know is an error, with its line; an image with a wrong configuration is not built.")
	table := ""
	for _, s := range Settings() {
		if s.Type == "array of tables" || s.Type == "table" && !strings.Contains(s.Name, ".") {
			table = s.Name + "."
			title := "[" + s.Name + "]"
			if s.Type == "array of tables" {
				title = "[" + title + "]"
			}
			p.subsection(title)
			p.para(s.Text)
			continue
		}
		p.item(strings.TrimPrefix(s.Name, table), fmt.Sprintf("(%s) %s", s.Type, s.Text))
	}
	p.section("Example")
	p.code(example)
	p.section("Options of file systems")
	p.para("With any type, *mount_options* may have atime, dev, exec, suid, sync, symfollow, lazytime, relatime, strictatime and diratime, their opposites, ro, rw, dirsync and silent. With one, besides, those of its driver:")
	for _, t := range fsopt.MountTypes {
		p.item(t, strings.Join(fsopt.Names(t), ", "))
	}
	p.para("What *mkfs_options* may have, those with a list of values as in -d su=64k,sw=4:")
	for _, t := range append(slices.Clone(fsopt.MountTypes), "swap") {
		p.item(t, strings.Join(fsopt.MakerOptions(t), ", "))
	}
	p.section("Files")
	p.para(files)
	p.section("See also")
	p.para("unlock(8), unlockctl(8)")
	return p.String()
}

func unlockctlPage(app *kong.Application) string {
	p := newPage("unlockctl", 8, "administer volumes that unlock opens at boot")
	p.section("Synopsis")
	p.para("*unlockctl* COMMAND [FLAG ...]")
	p.para("*unlockctl help* [COMMAND]")
	p.para("*unlockctl* --version")
	p.section("Description")
	p.para("unlockctl makes keys and policies, changes which keys open a volume, and looks for what would make a boot fail. It uses the AWS configuration of whoever runs it: environment, profiles, SSO, roles. Passphrases come from files, standard input or the terminal, never from arguments, and are not printed; the one exception is a new recovery key.")
	p.section("Commands")
	for _, c := range app.Children {
		p.subsection(c.Summary())
		p.para(c.Help)
		for _, a := range c.Positional {
			p.item(a.Summary(), a.Help)
		}
		for _, f := range c.Flags {
			p.item(flagText(f), f.Help)
		}
	}
	p.section("Volumes after the boot")
	p.para("*open*, *close* and *grow* do for one volume of the configuration what a boot does, with the network that is there, the credentials of the instance's role and KMS; AWS configuration of whoever runs them plays no part. What is open already stays as it is. *open* formats only with --format, and only what a boot would. What it did is in /run/unlock/opened/NAME.json, in the form of status.json; *status* shows both.")
	p.para("*close* unmounts a volume from where the configuration has it and removes its mappings. It does nothing while somebody uses it, and leaves alone what is not made of the volume's disks. A volume that is divided is opened and closed with all its shares, which have no life of their own; *recover* maps them as NAME-SHARE.")
	p.para("*grow* is for EBS volumes that were enlarged: the mapping gets the size of its disk, for which KMS is asked once more, as the kernel does not give the key away; then ext4, ext3, xfs or btrfs that is mounted from it follows.")
	p.para("*join* has a disk take part in an open mirror that lacks one: a blank disk, or one that was away. What is on it is overwritten, and it counts as missing until it has all data; if that is interrupted, say it again. A disk that may hold data that the others lack is refused: one that was opened without them, or that the kernel went on with when it had dropped one of them. A disk that the kernel drops while the mirror is open is left out when it is opened next; only then can it, or another, join.")
	p.para("*systemctl start unlock@NAME* opens a volume, too. It is started when a disk of a volume is attached, if you turn that on: ln -s /usr/lib/unlock/attached.rules /etc/udev/rules.d/90-unlock.rules. A name with + in it is none that systemd takes.")
	p.section("Exit status")
	p.item("0", "Done.")
	p.item("1", "It failed; or doctor found a fault, audit something to look at, or status a volume that is not open.")
	p.item("2", "A mistake on the command line or in the configuration.")
	p.section("Environment")
	p.para("Those of the AWS SDK: AWS_PROFILE, AWS_REGION, AWS_CA_BUNDLE, AWS_ENDPOINT_URL and others. *NO_COLOR* turns colours off, which are used on terminals only.")
	p.section("Files")
	p.para(files)
	p.section("See also")
	p.para("unlock(8), unlock.toml(5), aws(1)")
	return p.String()
}

func flagText(f *kong.Flag) string {
	text := "--" + f.Name
	if f.Short != 0 {
		text = fmt.Sprintf("-%c, %s", f.Short, text)
	}
	if f.Target.Kind() == reflect.Bool {
		return text
	}
	return text + "=" + f.FormatPlaceHolder()
}
