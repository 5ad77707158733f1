package boot

import (
	"fmt"
	"slices"

	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/status"
)

// mount mounts, below newroot, the volumes that are mapped, and records it. A required
// volume that cannot be mounted is an error. The place of one that is missing, because it
// is optional or may be absent, or because the boot skips it, is covered, so that nothing
// is written there in the clear.
func (p *part) mount(newroot string) error {
	p.Progress.otherwise(p.allFailed()) // again: what is not mounted is of no use
	var errs []error
	for i := range p.cfg.Volumes {
		v := &p.cfg.Volumes[i]
		if v.Mount == "" {
			continue
		}
		if err := p.place(v, newroot); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", v.Name, err))
		}
	}
	return hint.All(errs...)
}

// place mounts a volume or covers its place.
func (p *part) place(v *config.Volume, newroot string) error {
	i := slices.IndexFunc(p.report.Volumes, func(r status.Volume) bool { return r.Name == v.Name && r.Mapping != "" })
	if i >= 0 && p.report.Volumes[i].Mount == v.Mount {
		return nil // by an earlier try
	}
	if i >= 0 {
		err := p.rec.Do("mount", v.Name, func() error {
			return p.Kernel.Mount(p.report.Volumes[i].Mapping, newroot, v.Mount, v.Filesystem, v.MountOptions)
		})
		if err == nil {
			p.report.Volumes[i].Mount = v.Mount
		}
		if err == nil || v.Required {
			return err
		}
		p.Log.Failure(fmt.Errorf("volume %q: %w", v.Name, err))
	}
	return p.Kernel.Cover(newroot, v.Mount)
}
