package boot

import (
	"errors"
	"fmt"
	"slices"

	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/status"
)

// Guard judges, in the real system and before its services start, whether the initramfs
// of this boot did what the configuration asks for. An initramfs without unlock, or none
// at all, leaves nothing that could stop a boot; the system itself has to notice. It
// judges only; its caller covers mount points and holds up the boot.
type Guard struct {
	Config  *config.Config // that of the root file system, with the kernel command line's word
	Boot    *status.Boot   // what unlock left behind; nil: nothing
	BootID  string         // of the running kernel
	Mounted func(dir string) bool
}

// Verdict is what a Guard says.
type Verdict struct {
	Missing error            // why the boot must not go on; nil: it may
	Failed  []*config.Volume // the required volumes that are missing
	Cover   []Bare           // where something of a volume ought to be mounted, and is not
	Notes   []string         // what else to say
}

// Bare is a directory on which a volume ought to be.
type Bare struct {
	*config.Volume
	Dir string
}

// places lists where something of a volume is mounted, what is below after what is above.
func places(v *config.Volume) []string {
	if v.Mount == "" {
		return nil
	}
	list := []string{v.Mount}
	for _, b := range v.Binds {
		list = append(list, b.Path)
	}
	return list
}

// Reboot reports whether all that is missing asks for a reboot.
func (v *Verdict) Reboot() bool {
	return !slices.ContainsFunc(v.Failed, func(f *config.Volume) bool { return f.OnFailure != config.FailReboot })
}

const guardAdvice = "boot an initramfs with unlock: rebuild it, see that the boot loader names it for this kernel and does not try without (GRUB_FORCE_PARTUUID), or boot once with rd.unlock=0"

// Judge decides. It touches nothing.
func (g Guard) Judge() Verdict {
	boot := g.Boot
	if boot != nil && boot.BootID != g.BootID {
		boot = nil // another boot's, if /run outlives one
	}
	var v Verdict
	if boot != nil && boot.ConfigSum != g.Config.Sum {
		v.Notes = append(v.Notes, "/etc/unlock.toml differs from the one in the initramfs, which this boot went by; rebuild the initramfs")
	}
	for i := range g.Config.Volumes {
		volume := &g.Config.Volumes[i]
		for _, dir := range places(volume) {
			if !g.Mounted(dir) {
				v.Cover = append(v.Cover, Bare{volume, dir})
			}
		}
		if volume.Required && !g.Config.Skip && !isOpen(boot, volume) {
			v.Failed = append(v.Failed, volume)
		}
	}
	var errs []error
	for _, volume := range v.Failed {
		errs = append(errs, fmt.Errorf("volume %q is required and not open: %s", volume.Name, whyNot(boot)))
	}
	v.Missing = hint.With(errors.Join(errs...), guardAdvice)
	return v
}

func whyNot(boot *status.Boot) string {
	if boot == nil {
		return "this boot had no unlock in its initramfs"
	}
	return "the initramfs of this boot knew nothing of it"
}

// isOpen reports whether this boot mapped the volume, or found that it may do without.
func isOpen(boot *status.Boot, volume *config.Volume) bool {
	return boot != nil && slices.ContainsFunc(boot.Volumes, func(v status.Volume) bool {
		return v.Mapping != "" && slices.Contains(volume.Names(), v.Name) || v.Action == status.ActionAbsent && v.Name == volume.Name
	})
}
