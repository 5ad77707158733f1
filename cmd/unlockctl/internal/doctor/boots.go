package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"unlock/internal/config"
)

// generators, and what of ours each has to find, below the root.
var generators = []struct{ program, hook string }{
	{"usr/sbin/mkinitramfs", "usr/share/initramfs-tools/hooks/unlock"},
	{"usr/bin/mkinitcpio", "usr/lib/initcpio/install/unlock"},
	{"usr/bin/dracut", "usr/lib/dracut/modules.d/50unlock/module-setup.sh"},
}

// system looks, below System, for what would have the machine boot without unlock, or
// lose its instance store. It reports faults only.
func (d *Doctor) system(r *report) {
	if d.System == "" {
		return
	}
	d.bootLoader(r)
	d.console(r)
	for _, g := range generators {
		if d.exists(g.program) && !d.exists(g.hook) {
			r.add("hooks", Fail, "install the package, or make install-hooks", "%s is there, and %s is not: its images lack unlock", g.program, g.hook)
		}
	}
	if conf := d.read("etc/mkinitcpio.conf"); d.exists("usr/bin/mkinitcpio") && !slices.ContainsFunc(hooksOf(conf), func(h string) bool { return h == "unlock" || h == "sd-unlock" }) {
		r.add("hooks", Fail, "add sd-unlock after systemd and block, or unlock after udev and block", "HOOKS in /etc/mkinitcpio.conf has no unlock")
	}
	if !d.exists("usr/lib/systemd/system/local-fs.target.requires/unlock-guard.service") && !d.exists("etc/init.d/unlock-guard") {
		r.add("hooks", Warn, "install the package, or make install-hooks", "the guard is not installed: a boot without unlock would go on in the clear")
	}
	d.otherKernels(r)
}

// hooksOf returns the HOOKS of a configuration of mkinitcpio.
func hooksOf(conf string) []string {
	for line := range strings.Lines(conf) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "HOOKS="); ok {
			return strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune("() \"'", r) })
		}
	}
	return nil
}

// bootLoader looks into what makes kernel command lines.
func (d *Doctor) bootLoader(r *report) {
	const force = "GRUB_FORCE_PARTUUID="
	value, where := "", ""
	for _, file := range d.glob("etc/default/grub", "etc/default/grub.d/*.cfg") { // the last one counts
		for line := range strings.Lines(d.read(file)) {
			if rest, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(line), "export "), force); ok {
				value, where = strings.Trim(rest, `"'`), file
			}
		}
	}
	if value != "" {
		r.add("boot", Fail, "echo "+force+" >/etc/default/grub.d/99-unlock.cfg && update-grub",
			"/%s has GRUB try each kernel without an initramfs first, and so without unlock", where)
	}
	for _, file := range d.commandLines() {
		text := d.read(file)
		if strings.Contains(text, "rd.emergency=poweroff") {
			r.add("boot", Warn, "say rd.emergency=reboot", "/%s powers the machine off where its initramfs fails in something else than unlock, and the instance store is lost", file)
		}
		if strings.Contains(text, "rd.unlock=0") {
			r.add("boot", Fail, "remove it", "/%s has unlock skipped (rd.unlock=0)", file)
		}
	}
}

// commandLines are the files that kernel command lines are made of.
func (d *Doctor) commandLines() []string {
	return d.glob("etc/default/grub", "etc/default/grub.d/*.cfg", "etc/kernel/cmdline", "boot/loader/entries/*.conf", "boot/grub2/grubenv")
}

// shells, as root and in reach of the instance's role, that generators open where the
// root file system does not come, and what on the kernel command line closes them.
var shells = []struct{ program, closed, opened string }{
	{"usr/sbin/mkinitramfs", "panic=60", "initramfs-tools opens a shell for root without a password"},
	{"usr/bin/dracut", "rd.shell=0", "dracut opens a shell for root, without a password where root has none"},
}

// console looks for what gives whoever has the console a shell.
func (d *Doctor) console(r *report) {
	var words []string
	for _, file := range d.commandLines() {
		for _, word := range strings.FieldsFunc(d.read(file), func(r rune) bool { return strings.ContainsRune(" \t\n\"'", r) }) {
			words = append(words, word)
			name, value, _ := strings.Cut(word, "=")
			if slices.Contains([]string{"rd.break", "break", "init", "rdinit", "systemd.debug_shell"}, name) && !slices.Contains([]string{"0", "init", "systemd"}, filepath.Base(value)) {
				r.add("console", Warn, "remove it", "/%s has %s: a shell, or another program, in place of what boots", file, word)
			}
		}
	}
	for _, s := range shells {
		name, value, _ := strings.Cut(s.closed, "=")
		closed := slices.ContainsFunc(words, func(w string) bool {
			n, v, _ := strings.Cut(w, "=")
			return n == name && (v == value || name == "panic")
		})
		if len(words) > 0 && d.exists(s.program) && !closed {
			r.add("console", Warn, "add "+s.closed+" to the kernel command line, if whoever has the console must not be root", "%s if the root file system does not come", s.opened)
		}
	}
	if hooks := hooksOf(d.read("etc/mkinitcpio.conf")); d.exists("usr/bin/mkinitcpio") && slices.Contains(hooks, "unlock") {
		r.add("console", Warn, "use systemd and sd-unlock in HOOKS, if whoever has the console must not be root", "mkinitcpio without systemd opens a shell for root without a password if the root file system does not come")
	}
}

// otherKernels compares the images of the kernels that were not looked at.
func (d *Doctor) otherKernels(r *report) {
	for _, dir := range d.glob("usr/lib/modules/*/modules.dep", "lib/modules/*/modules.dep") {
		version := filepath.Base(filepath.Dir(dir))
		if version == filepath.Base(d.Modules) {
			continue
		}
		for _, image := range d.glob("boot/initrd.img-"+version, "boot/initramfs-"+version+".img") {
			if err := d.current(filepath.Join(d.System, image)); err != nil {
				r.add("initramfs", Fail, "/usr/lib/unlock/rebuild", "kernel %s would boot another image: /%s: %v", version, image, err)
			}
		}
	}
}

// current reports how an image differs from what one that is built now would hold.
func (d *Doctor) current(image string) error {
	files, err := readImage(image)
	if err != nil {
		return err
	}
	for _, f := range []struct{ what, now, image string }{
		{"the program unlock", d.Unlock, "usr/lib/unlock/unlock"},
		{"unlock.toml", d.Config, strings.TrimPrefix(config.DefaultFile, "/")},
	} {
		now, err := os.ReadFile(f.now)
		old, found := files.content[f.image]
		switch {
		case err != nil:
			return err
		case !found:
			return fmt.Errorf("it does not contain %s", f.what)
		case string(old) != string(now):
			return fmt.Errorf("%s in it is not the one in %s", f.what, f.now)
		}
	}
	return nil
}

// glob returns the files below System that match, each once, relative to it.
func (d *Doctor) glob(patterns ...string) []string {
	var found []string
	for _, p := range patterns {
		matches, _ := filepath.Glob(filepath.Join(d.System, p)) // the patterns are good
		for _, m := range matches {
			if name, err := filepath.Rel(d.System, m); err == nil {
				found = append(found, name)
			}
		}
	}
	return found
}

func (d *Doctor) exists(name string) bool {
	_, err := os.Stat(filepath.Join(d.System, name))
	return err == nil
}

// read returns a file's text, "" if there is none, without the lines of comments.
func (d *Doctor) read(name string) string {
	data, err := os.ReadFile(filepath.Join(d.System, name))
	if err != nil {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(strings.TrimSpace(line), "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}
