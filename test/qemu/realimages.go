package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"unlock/test/distro"
	"unlock/test/lab"
	"unlock/test/vm"
)

// amazonLinux is what Amazon Linux 2023 has on its kernel command line, but for the root
// and the console: a boot that fails in its initramfs powers off, which loses the
// instance store.
const amazonLinux = "nvme_core.io_timeout=4294967295 rd.emergency=poweroff rd.shell=0 selinux=1 security=selinux quiet"

// heldText is on the console when unlock holds up a boot.
const heldText = "the boot stops here"

// gaveUp is what unlock says when something else in the image does.
const gaveUp = "something in the image gave up"

// hasty has a boot that is held up try again soon. Settings of no table come first.
const hasty = "retry_every = \"20s\"\n"

// flavours are the kinds of images; the names of their scenarios end so.
var flavours = []struct {
	suffix string
	installed
}{
	{"", installed{System: trixieDracut, Generator: dracut("no", plainDisks)}},
	{"-busybox", installed{System: trixieDracut, Generator: dracut("no", plainDisks+noSystemd)}},
	{"-initramfs-tools", installed{System: trixieTools, Generator: initramfsTools}},
}

// realImages are machine images as they are: their kernel command lines are not
// friendly, an initramfs may lack unlock, an instance its disks.
func realImages() []lab.Scenario {
	var all []lab.Scenario
	for _, f := range flavours {
		all = append(all, everyFlavour(f.suffix, f.installed)...)
	}
	usual := flavours[0].installed
	return append(all,
		lab.Scenario{
			// Whatever else gives up for want of a volume waits, too: here dracut's queue, for the root.
			// Meanwhile there is a shell for whoever knows root's password.
			Name: "al2023-root-denied", Config: "emergency_shell = true\n" + fileKey + secretfs, Disks: blank(1), System: usual.machine,
			Boots: []lab.Boot{{
				Append: amazonLinux + " root=LABEL=of-a-volume rd.retry=15", Faults: []string{"kms-denied"}, Machine: endAfter(gaveUp, time.Minute),
				Want: []string{"AccessDenied", heldText, gaveUp, "maintenance"}, Check: staysUp,
			}},
		},
		lab.Scenario{
			// The root on the volume itself: when it is open, the boot goes on from where the image gave up.
			Name: "al2023-root-opens", Disks: []string{"blank:2200"},
			Config: hasty + fileKey + "[[volume]]\nname = \"system\"\ndevice = \"/dev/nvme0n1\"\n",
			System: installed{System: trixieDracut, Generator: dracut("no", plainDisks), files: rootOfVolume}.machine,
			Boots: []lab.Boot{
				{Append: "root=/dev/vda rd.unlock=0", Machine: besideRoot, Script: "move_root", Secret: true},
				{
					Append: amazonLinux + " root=/dev/mapper/system rd.retry=15", Faults: []string{"kms-denied"}, Machine: mendAfter(gaveUp, 5*time.Second),
					Script: "root_on_volume", Want: []string{"AccessDenied", heldText, gaveUp},
				},
				{
					Append: strings.Replace(amazonLinux, "rd.shell=0", "rd.shell", 1) + " root=/dev/mapper/system rd.retry=15", Faults: []string{"kms-denied"}, Machine: mendAfter(gaveUp, 5*time.Second),
					Script: "root_on_volume", Want: []string{"AccessDenied", heldText, gaveUp},
				},
			},
		},
		lab.Scenario{
			Name: "wrong-passphrases-no-shell", Config: fileKey + secretfs + "on_failure = \"prompt\"\n", Disks: blank(1), System: usual.machine,
			Boots: []lab.Boot{
				{Script: "write_open"},
				{
					Faults: []string{"kms-denied"}, Append: "rd.unlock.timeout=30s", Machine: typeAfter(heldText, "\necho no-shell-$((40 + 2))\n"),
					Typed: []vm.Typed{{When: secretfsQuestion, Text: "wrong\n", After: person}, {When: secretfsQuestion, Text: "worse\n", After: person}, {When: secretfsQuestion, Text: "worst\n", After: person}},
					Want:  []string{heldText}, Check: lab.All(staysUp, lacks("no-shell-42")),
				},
			},
		},
		lab.Scenario{
			// With the package in the root, and an entry in fstab: what is opened is closed.
			Name: "shutdown", Config: fileKey + secretfs, Disks: blank(1),
			System: usual.packaged("/etc/fstab", "LABEL=unlock-root / ext4 defaults 0 1\n/dev/mapper/secretfs /mnt/secretfs ext4 defaults,nofail 0 2\n"),
			Boots: []lab.Boot{
				{Script: "opened_here secretfs\nwrite_open\nsystemctl daemon-reload\nshut_down", Want: []string{"reboot: Power down"},
					Check: lab.All(noStopJob, lacks("Failed to unmount", "timed out"))},
				{Script: "opened_here secretfs\nread_open", Want: []string{lab.FileText}},
			},
		},
		lab.Scenario{
			Name: "ro-root", Config: usualConfig, Disks: blank(1), System: usual.packaged(),
			Boots: []lab.Boot{{Append: "ro", Script: "opened_here secretfs infile\nwrite_open"}, {Append: "ro", Script: "opened_here secretfs infile\nread_open", Want: []string{lab.FileText}}},
		},
		lab.Scenario{
			Name: "no-disks-allowed", Config: fileKey + secretfs + "absent = \"allow\"\n", System: usual.packaged(),
			Boots: []lab.Boot{{Append: "ro", Script: "covered_here secretfs"}},
		},
		lab.Scenario{
			Name: "skipped-covered", Config: fileKey + secretfs, Disks: blank(1), System: usual.packaged(),
			Boots: []lab.Boot{{Append: "ro rd.unlock=0", Script: "covered_here secretfs", Check: lab.NoRequest("kms")}},
		},
		lab.Scenario{
			// Debian without systemd in the real system: the init script is the guard there.
			Name: "no-initramfs-sysvinit", Config: fileKey + secretfs, Disks: blank(1), System: withoutUnits(trixieSysvinit),
			Boots: []lab.Boot{
				{Append: "ro", Script: "opened_here secretfs\nwrite_open"},
				{
					Append: "ro", Machine: changes(bootWithout, endAfter(heldText, 20*time.Second)),
					Want: []string{"this boot had no unlock in its initramfs", heldText}, Check: lab.All(staysUp, lab.NoRequest("kms"), lacks("script: begin")),
				},
			},
		},
		lab.Scenario{
			// The crash kernel gets the very image that has unlock, and must not ask for keys.
			Name: "kdump", Config: fileKey + secretfs, Disks: blank(1), KeepRoot: true,
			System: installed{System: trixieKdump, Generator: dracut("no", plainDisks)}.packaged(),
			Boots: []lab.Boot{{
				Before: crashKernel, Append: "crashkernel=640M", Machine: func(_ *lab.Lab, m *vm.Machine) { m.Timeout = 30 * time.Minute },
				Script: "crash_or_dump", Want: []string{"a crash dump is to be written", "dump: written"}, Check: lab.Answered("kms", 200),
			}},
		},
	)
}

// everyFlavour are those that all kinds of images must pass.
func everyFlavour(suffix string, i installed) []lab.Scenario {
	return []lab.Scenario{
		{
			// A denial over an IAM mistake, which somebody mends after a while.
			Name: "al2023-denied" + suffix, Config: hasty + fileKey + secretfs, Disks: blank(1), System: i.machine,
			Boots: []lab.Boot{
				{Append: amazonLinux, Script: "opened_here secretfs\nwrite_open"},
				{
					Append: amazonLinux, Faults: []string{"kms-denied"}, Machine: mendAfter(heldText, 90*time.Second), Script: "opened_here secretfs\nread_open",
					Want: []string{"AccessDenied", "hint: ", heldText + "; trying again in", lab.FileText},
				},
			},
		},
		{
			Name: "no-initramfs" + suffix, Config: fileKey + secretfs, Disks: blank(1), System: i.packaged(),
			Boots: []lab.Boot{{
				Append: "ro", Machine: changes(bootWithout, endAfter(heldText, 20*time.Second)),
				Want: []string{"this boot had no unlock in its initramfs", heldText}, Check: lab.All(staysUp, lab.NoRequest("kms")),
			}},
		},
		{
			Name: "stale-initramfs" + suffix, Config: fileKey + secretfs, Disks: blank(1), System: i.stale(strings.Replace(secretfs, "secretfs", "earlier", 2) + "absent = \"allow\"\n"),
			Boots: []lab.Boot{{
				Append: "ro", Attach: []int{}, Machine: endAfter(heldText, 20*time.Second),
				Want: []string{"differs from the one in the initramfs", "the initramfs of this boot knew nothing of it", heldText}, Check: staysUp,
			}},
		},
		{
			Name: "no-disks-required" + suffix, Config: fileKey + secretfs, System: i.machine,
			Boots: []lab.Boot{{Append: amazonLinux, Machine: endAfter(heldText, 20*time.Second), Want: []string{"no device instance-store", `absent = "allow"`, heldText}, Check: lab.All(staysUp, lab.NoFrames)}},
		},
	}
}

const secretfsQuestion = "Recovery passphrase for volume secretfs:"

// packaged is a lab.System whose root has the package and the configuration too, and
// these files: path, text, path, …
func (i installed) packaged(files ...string) lab.System {
	i.files = append(i.files, files...)
	i.plain = true
	return func(ctx context.Context, l *lab.Lab) error {
		if err := i.machine(ctx, l); err != nil {
			return err
		}
		return installPackage(ctx, l)
	}
}

// stale is the same with an image that was built for other volumes.
func (i installed) stale(volumes string) lab.System {
	return func(ctx context.Context, l *lab.Lab) error {
		now := l.Config
		l.Config = fileKey + volumes
		err := i.machine(ctx, l)
		l.Config = now
		if err != nil {
			return err
		}
		return installPackage(ctx, l)
	}
}

// inittab has init(8) run sysvinitScenario.
const inittab = `id:2:initdefault:
si::sysinit:/etc/init.d/rcS
l2:2:wait:/etc/init.d/rc 2
sc:2:once:/bin/sh /etc/scenario >/dev/console 2>&1
`

//go:embed sysvinit.sh
var sysvinitScenario string

// withoutUnits is a packaged system that init(8) brings up.
func withoutUnits(s distro.System) lab.System {
	packaged := installed{System: s, Generator: initramfsTools}.packaged("/etc/inittab", inittab, "/etc/scenario", sysvinitScenario)
	return func(ctx context.Context, l *lab.Lab) error {
		if err := packaged(ctx, l); err != nil {
			return err
		}
		l.Up = ""
		return nil
	}
}

// installPackage gives the machine a root of its own with what packages install.
func installPackage(ctx context.Context, l *lab.Lab) error {
	if err := l.PutOnRoot(ctx, "/etc/unlock.toml", []byte(l.Expand(l.Config))); err != nil {
		return err
	}
	root := l.File("mounted")
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := lab.Command(ctx, "", "mount", "-o", "loop", l.Base.Root, root); err != nil {
		return err
	}
	return errors.Join(
		lab.Command(ctx, "", "make", "-s", "-f", "install.mk", "install-hooks", "install-init", "DESTDIR="+root),
		lab.Command(ctx, "", "chroot", root, "update-rc.d", "unlock-guard", "defaults"), // as the deb's postinst
		lab.Command(ctx, "", "umount", root),
	)
}

// crashKernel puts kernel and image where kexec finds them.
func crashKernel(ctx context.Context, l *lab.Lab) error {
	for name, file := range map[string]string{"/boot/crash-kernel": l.Base.Kernel, "/boot/crash-initrd": l.Base.Initrd} {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := l.PutOnRoot(ctx, name, content); err != nil {
			return err
		}
	}
	return nil
}

// bootWithout boots the image that the generator made before there was a configuration.
func bootWithout(_ *lab.Lab, m *vm.Machine) {
	m.Initrd = filepath.Join(filepath.Dir(m.Initrd), "plain.img")
}

func changes(all ...lab.Change) lab.Change {
	return func(l *lab.Lab, m *vm.Machine) {
		for _, c := range all {
			c(l, m)
		}
	}
}

// endAfter ends a machine that would stand still for ever, some time after the console
// has shown a text.
func endAfter(text string, d time.Duration) lab.Change {
	return func(_ *lab.Lab, m *vm.Machine) {
		m.Events = append(m.Events, vm.Event{When: text, After: d, Do: []vm.Request{{Execute: "quit"}}})
	}
}

// typeAfter types what a person would who finds the boot held up, and ends the machine.
func typeAfter(text, typed string) lab.Change {
	return func(l *lab.Lab, m *vm.Machine) {
		m.Type = append(m.Type, vm.Typed{When: text, Text: typed, After: person})
		endAfter(text, 30*time.Second)(l, m)
	}
}

// mendAfter ends the cloud's faults some time after a text on the console.
func mendAfter(text string, d time.Duration) lab.Change {
	return func(l *lab.Lab, m *vm.Machine) {
		m.Events = append(m.Events, vm.Event{When: text, After: d, Call: func(context.Context) error { return l.Cloud.SetFaults() }})
	}
}

// staysUp checks that nothing ended the machine but the scenario.
func staysUp(l *lab.Lab) error { return lacks("reboot: ", "Powering off", "Rebooting", "Halting")(l) }

func lacks(texts ...string) lab.Judge {
	return func(l *lab.Lab) error {
		for _, text := range texts {
			if l.Console.Contains(text) {
				return fmt.Errorf("the console shows %q", text)
			}
		}
		return nil
	}
}
