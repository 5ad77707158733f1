package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/needs"
	"unlock/internal/plan"
	"unlock/internal/unlock"
)

// needs looks for the files, programs and modules that an image must contain.
func (d *Doctor) needs(r *report, c *config.Config) {
	list := needs.Of(c)
	for _, f := range list.Files {
		info, err := os.Stat(f)
		switch {
		case err != nil:
			r.add("files", Fail, "put the file there, or correct the configuration", "%v", err)
		case f != c.AWS.CABundle && (info.Size() == 0 || info.Size() > keys.MaxCiphertext):
			r.add("files", Fail, "write it with unlockctl seal", "%s has %d bytes: not a ciphertext of KMS", f, info.Size())
		default:
			r.add("files", OK, "", "%s", f)
		}
	}
	for _, p := range list.Programs {
		if found := fsys.Find(p.Name, d.Bin...); found != "" {
			r.add("programs", OK, "", "%s", found)
		} else {
			r.add("programs", Fail, "install it, then rebuild the initramfs", "volume %q needs %s to make %s, which is not on this system", p.Volume.Name, p.Name, p.Volume.Filesystem)
		}
	}
	for _, name := range list.Checkers {
		if fsys.Find(name, d.Bin...) == "" {
			r.add("programs", Warn, "install it, then rebuild the initramfs", "%s is not on this system: file systems are mounted without being checked", name)
		}
	}
	d.modules(r, list)
}

func (d *Doctor) modules(r *report, list needs.List) {
	have, err := moduleNames(d.Modules)
	if err != nil {
		r.add("modules", Fail, "install the kernel's modules, or name its version with --kernel", "%v", err)
		return
	}
	missing := 0
	for _, m := range list.Modules {
		if !have[canonical(m)] {
			r.add("modules", Fail, "use a kernel that has it", "kernel %s has no %s", filepath.Base(d.Modules), m)
			missing++
		}
	}
	if !have["ena"] && !have["virtio_net"] && !have["xen_netfront"] {
		r.add("modules", Fail, "use a kernel for the cloud", "kernel %s has no driver for a network card of EC2 (ena, xen-netfront)", filepath.Base(d.Modules))
		missing++
	}
	if missing == 0 {
		r.add("modules", OK, "", "kernel %s has %s", filepath.Base(d.Modules), strings.Join(list.Modules, ", "))
	}
}

// moduleNames reads which modules a kernel has, as files or built in.
func moduleNames(dir string) (map[string]bool, error) {
	have := map[string]bool{}
	for _, name := range []string{"modules.dep", "modules.builtin"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			path, _, _ := strings.Cut(strings.TrimSpace(line), ":")
			have[moduleName(path)] = true
		}
	}
	return have, nil
}

// moduleName of kernel/drivers/md/dm-crypt.ko.zst is dm_crypt.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return canonical(name)
}

// mirror looks for what a mirror lacks: it opens, but the next disk that fails may be one
// too many.
func (d *Doctor) mirror(r *report, step *plan.Step) {
	if step.Copies > 0 && step.Active && d.Lacking != nil {
		var err error
		if step.Lacks, err = d.Lacking(step.Name); err != nil {
			r.add("disks", Skip, "", "volume %q: %v", step.Name, err)
		}
	}
	if n := step.Missing(); n > 0 {
		r.add("disks", Warn, "attach a disk, then unlockctl join "+step.Name, "volume %q: %d of the %d disks of its mirror are missing or behind", step.Name, n, step.Count)
	}
}

func canonical(module string) string { return strings.ReplaceAll(module, "-", "_") }

// disks plans as a boot does, and returns the headers with keys in them.
func (d *Doctor) disks(r *report, c *config.Config) []*plan.Step {
	all, err := d.Disks()
	if err != nil {
		r.add("disks", Fail, "", "%v", err)
		return nil
	}
	s := plan.Situation{Config: c, Active: map[string]string{}, NewUUID: func() string { return "a new UUID" }}
	for _, disk := range all {
		if plan.Relevant(c, disk) {
			s.Candidates = append(s.Candidates, unlock.Inspect(luks.Limits{}, disk))
		}
	}
	for _, v := range c.Volumes {
		for _, name := range v.Names() {
			if uuid, err := d.Active(name); err == nil && uuid != "" {
				s.Active[name] = uuid
			}
		}
	}
	p := plan.Make(s)
	var opened []*plan.Step
	for i := range p.Steps {
		step := &p.Steps[i]
		var paths []string
		for _, m := range step.Members {
			paths = append(paths, m.Disk.Path)
			if m.LUKS != nil {
				for _, n := range m.LUKS.Header.Notes() {
					r.add("disks", Warn, "the next boot mends it", "%s: %s", m.Disk.Path, n)
				}
			}
		}
		r.add("disks", OK, "", "volume %q: %s %s", step.Name, step.Action(), strings.Join(paths, ", "))
		d.mirror(r, step)
		if !step.Format && step.Members[0].LUKS != nil && step.Members[0].LUKS.KMS != nil {
			opened = append(opened, step)
		}
	}
	for _, refusal := range p.Refusals {
		state := Fail
		if !refusal.Volume.Required {
			state = Warn
		}
		r.add("disks", state, diskHint(refusal), "%v", refusal)
	}
	for _, v := range p.Absent {
		switch {
		case v.Device.Kind == config.SelectShare: // it is its whole that is missing
		case v.Device.Kind == config.SelectFile:
			r.add("disks", Skip, "", "volume %q is in a file of the root file system", v.Name)
		case v.Required && (v.Device.Kind != config.SelectInstanceStore || v.Count > 0):
			r.add("disks", Fail, "attach it, or correct the device selector; lsblk -o NAME,MODEL,SERIAL,UUID,PARTUUID shows what is there",
				"volume %q: no device %s", v.Name, v.Device)
		default:
			r.add("disks", Warn, "on an instance type with such disks it would be opened", "volume %q: no device %s here", v.Name, v.Device)
		}
	}
	return opened
}

func diskHint(refusal *plan.Refusal) string {
	if os.Geteuid() != 0 {
		return "run it as root, who may read disks"
	}
	return refusal.Hint
}

// image compares what is in the initramfs with what is on the system.
func (d *Doctor) image(r *report, c *config.Config) {
	if d.Image == "" {
		r.add("initramfs", Skip, "name it with --image", "no initramfs was named or found")
		return
	}
	const rebuild = "rebuild the initramfs: dracut --force, update-initramfs -u, mkinitcpio -P, or unlockctl initramfs"
	files, err := readImage(d.Image)
	if err != nil {
		r.add("initramfs", Fail, rebuild, "reading %s: %v", d.Image, err)
		return
	}
	bad := 0
	same := func(what, onDisk string, inImage ...string) {
		var data []byte
		found := false
		for _, name := range inImage {
			if data, found = files.content[name]; found {
				break
			}
		}
		current, err := os.ReadFile(onDisk)
		switch {
		case !found:
			bad++
			r.add("initramfs", Fail, rebuild, "%s does not contain %s", d.Image, what)
		case err != nil:
			r.add("initramfs", Skip, "", "%s cannot be compared: %v", what, err)
		case string(data) != string(current):
			bad++
			r.add("initramfs", Fail, rebuild, "%s in %s is not the one in %s", what, d.Image, onDisk)
		}
	}
	same("the program unlock", d.Unlock, "usr/lib/unlock/unlock", "lib/unlock/unlock", "usr/bin/unlock", "init")
	same("unlock.toml", d.Config, strings.TrimPrefix(config.DefaultFile, "/"))
	list := needs.Of(c)
	for _, f := range list.Files {
		same(f, f, strings.TrimPrefix(f, "/"))
	}
	builtin, err := moduleNames(d.Modules)
	if err != nil {
		builtin = map[string]bool{}
	}
	for _, m := range list.Modules {
		if !files.modules[canonical(m)] && !d.isBuiltin(m) && builtin[canonical(m)] {
			bad++
			r.add("initramfs", Fail, rebuild, "%s does not contain the kernel module %s", d.Image, m)
		}
	}
	if bad == 0 {
		r.add("initramfs", OK, "", "%s holds the current program, configuration and modules", d.Image)
	}
}

func (d *Doctor) isBuiltin(module string) bool {
	data, err := os.ReadFile(filepath.Join(d.Modules, "modules.builtin"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if moduleName(strings.TrimSpace(line)) == canonical(module) {
			return true
		}
	}
	return false
}

var errNoCpio = errors.New("not an initramfs: no cpio archive in any known compression")

func imageError(at int64, what string) error { return fmt.Errorf("at byte %d: %s", at, what) }
