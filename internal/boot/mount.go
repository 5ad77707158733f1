package boot

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/plan"
	"unlock/internal/status"
)

// mount mounts, below newroot, the volumes that are mapped, then the directories that lie
// on them, and records it. A required volume that cannot be mounted is an error. The
// places of one that is missing, because it is optional or may be absent, or because the
// boot skips it, are covered, so that nothing is written there in the clear.
func (p *part) mount(ctx context.Context, newroot string) error {
	p.Progress.otherwise(p.allFailed()) // again: what is not mounted is of no use
	var errs []error
	var binds []binding
	for i := range p.cfg.Volumes {
		v := &p.cfg.Volumes[i]
		if v.Mount == "" {
			continue
		}
		if err := p.place(ctx, v, newroot); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", v.Name, err))
		}
		for _, b := range v.Binds {
			binds = append(binds, binding{v, b})
		}
	}
	if err := hint.All(errs...); err != nil {
		return err
	}
	sort.Slice(binds, func(i, j int) bool { return binds[i].Path < binds[j].Path }) // what is below comes later
	for _, b := range binds {
		if err := p.bind(b, newroot); err != nil {
			errs = append(errs, fmt.Errorf("volume %q: %w", b.volume.Name, err))
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

// opened returns the record of a volume that is mapped, or nil.
func (p *part) opened(v *config.Volume) *status.Volume {
	i := slices.IndexFunc(p.report.Volumes, func(r status.Volume) bool { return r.Name == v.Name && r.Mapping != "" })
	if i < 0 {
		return nil
	}
	return &p.report.Volumes[i]
}

// place mounts a volume or covers its place.
func (p *part) place(ctx context.Context, v *config.Volume, newroot string) error {
	r := p.opened(v)
	if r == nil {
		return p.cover(v, newroot, v.Mount)
	}
	if r.Mount != v.Mount { // else it was mounted by an earlier try
		err := p.check(ctx, v, r)
		if err == nil {
			err = p.rec.Step("mount", v.Name, func() error {
				return p.Kernel.Mount(r.Mapping, newroot, v.Mount, v.Filesystem, v.MountOptions)
			})
		}
		switch {
		case err == nil:
			r.Mount = v.Mount
			p.keep()
		case v.Required:
			return err
		default:
			p.Log.Failure(fmt.Errorf("volume %q: %w", v.Name, err))
			return p.cover(v, newroot, v.Mount)
		}
	}
	if v.Owner == "" && v.Mode == 0 {
		return nil
	}
	err := p.rec.Step("own", v.Name, func() error { return p.Kernel.Own(newroot, v.Mount, v.Owner, v.Mode) })
	if err != nil && !v.Required {
		p.Log.Failure(fmt.Errorf("volume %q: %w", v.Name, err))
		return nil
	}
	return err
}

// cover covers a place of a volume.
func (p *part) cover(v *config.Volume, newroot, dir string) error {
	return p.rec.Step("cover", v.Name, func() error { return p.Kernel.Cover(newroot, dir) })
}

// keep leaves on record what is mounted by now, for the next try, if this one is given up.
func (p *part) keep() {
	if p.Progress == nil {
		return
	}
	b := *p.report
	p.rec.Fill(&b)
	if err := status.Write(p.Status, &b); err != nil {
		p.Log.Failure(err)
	}
}

// check has a file system looked over that this boot has not made.
func (p *part) check(ctx context.Context, v *config.Volume, r *status.Volume) error {
	if fsys.Checker(v.Filesystem) == "" || r.Action == plan.ActionFormat || r.Action == plan.ActionFinish {
		return nil
	}
	ctx, alive, end := p.patient(ctx)
	defer end()
	how := fsys.Checking{Alive: alive}
	mode, _ := config.Setting(p.Cmdline, "fsck.mode")
	how.Skip, how.Force = mode == "skip", mode == "force"
	how.Repair, _ = config.Setting(p.Cmdline, "fsck.repair")
	return p.rec.Step("fsck", v.Name, func() (err error) {
		r.Check, err = p.Kernel.Check(ctx, r.Mapping, v.Filesystem, how)
		switch {
		case err != nil:
			r.Check = err.Error()
		case r.Check != fsys.Clean:
			p.Log.Warnf("volume %q: file system of %s: %s", v.Name, r.Mapping, r.Check)
		}
		return err
	})
}

// patient is for what may take as long as it likes, so long as it goes on: each call of
// alive puts the deadline off.
func (p *part) patient(ctx context.Context) (_ context.Context, alive, end func()) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	timer := time.AfterFunc(p.cfg.Timeout, func() { cancel(context.DeadlineExceeded) })
	p.Progress.deadline(p.cfg.Timeout)
	said := time.Now()
	alive = func() {
		if time.Since(said) < time.Second {
			return
		}
		said = time.Now()
		timer.Reset(p.cfg.Timeout)
		p.Progress.deadline(p.cfg.Timeout)
	}
	return ctx, alive, func() {
		timer.Stop()
		cancel(nil)
		p.Progress.deadline(p.cfg.Timeout) // anew, for what comes of it
	}
}

// binding is a directory and the volume on which it lies.
type binding struct {
	volume *config.Volume
	config.Bind
}

// bind has a directory lie on its volume, or covers it.
func (p *part) bind(b binding, newroot string) error {
	r := p.opened(b.volume)
	if r == nil || r.Mount == "" {
		return p.cover(b.volume, newroot, b.Path)
	}
	if slices.Contains(r.Binds, b.Path) {
		return nil // by an earlier try
	}
	_, goesOn, end := p.patient(context.Background())
	defer end()
	copying := false
	alive := func() {
		if !copying {
			p.Log.Infof("volume %q: copying what is in %s", b.volume.Name, b.Path)
		}
		copying = true
		goesOn()
	}
	err := p.rec.Step("bind", b.Path, func() error { return p.Kernel.Bind(newroot, b.volume.Mount, b.Bind, alive) })
	switch {
	case err == nil:
		r.Binds = append(r.Binds, b.Path)
		p.keep()
	case b.volume.Required:
		return err
	default:
		p.Log.Failure(fmt.Errorf("volume %q: %w", b.volume.Name, err))
		return p.cover(b.volume, newroot, b.Path)
	}
	return nil
}
