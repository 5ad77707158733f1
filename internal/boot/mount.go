package boot

import (
	"fmt"
	"slices"

	"unlock/internal/config"
	"unlock/internal/dm"
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
	if err := hint.All(errs...); err != nil {
		return err
	}
	p.grow(newroot)
	return nil
}

// grow has file systems take the room that their disks have got. The mappings have it
// from the beginning. What cannot be grown is as good as it was: that is no failure, and
// neither is a disk that does not end it within the deadline.
func (p *part) grow(newroot string) {
	p.Progress.otherwise(Done)
	for i := range p.cfg.Volumes {
		v := &p.cfg.Volumes[i]
		if !v.Grow || !slices.ContainsFunc(p.report.Volumes, func(r status.Volume) bool { return r.Name == v.Name && r.Mount == v.Mount }) {
			continue
		}
		grown, err := false, error(nil)
		_ = p.rec.Step("grow", v.Name, func() error {
			var d dm.Device
			if d, _, err = p.Kernel.Lookup(v.Name); err == nil && d.Table.Sectors > 0 {
				grown, err = p.Kernel.Grow(newroot, v.Mount, v.Filesystem, int64(d.Table.Sectors)<<dm.SectorShift)
			}
			return err
		})
		switch {
		case err != nil:
			p.Log.Warnf("volume %q: %v", v.Name, err)
		case grown:
			p.Log.Infof("volume %q: its file system has grown", v.Name)
		}
	}
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
