package boot

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/plan"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// What follows is for a system that is up, one volume of the configuration at a time, by
// the same steps as in a boot. Whoever asks for it wants that volume: it counts as
// required, whatever the configuration lets a boot do without, and nothing reboots.

// Open opens a volume and mounts it. What is open or mounted already stays as it is. It
// formats only if it may, and then as a boot would.
func (m *Machine) Open(ctx context.Context, volume string, format bool) Outcome {
	return m.after(ctx, volume, func(ctx context.Context, p *part) error {
		found, err := p.find(ctx, format)
		if err != nil {
			return err
		}
		if !format {
			refuseFormats(found)
		}
		if err := p.apply(ctx, found); err != nil {
			return err
		}
		if err := p.mounted(); err != nil {
			return err
		}
		return p.mount(ctx, "/")
	})
}

// Grow has a volume that is open take the room that its disk has got: first the mapping,
// then the file system that is mounted from it.
func (m *Machine) Grow(ctx context.Context, volume string) Outcome {
	return m.after(ctx, volume, func(ctx context.Context, p *part) error {
		v := &p.cfg.Volumes[0]
		if v.Device.Kind == config.SelectInstanceStore || v.Device.Kind == config.SelectFile {
			return fmt.Errorf("volume %q: %s does not become larger", v.Name, v.Device)
		}
		found, err := p.find(ctx, false)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(found.Steps, func(s plan.Step) bool { return !s.Active }) {
			return hint.With(fmt.Errorf("volume %q is not open", v.Name), "unlockctl open opens it with all the room that its disk has")
		}
		var before dm.Device
		if len(found.Refusals) == 0 { // else they say why
			if before, err = p.device(v.Name); err != nil {
				return err
			}
		}
		p.enlarge = true
		if err := p.apply(ctx, found); err != nil {
			return err
		}
		return p.enlarged(v, before)
	})
}

// Join has a disk take part in the mirror of a volume that is open, and waits until it has
// all data, for which the deadline does not hold. disk is its path, "" the only one that may
// be meant.
func (m *Machine) Join(ctx context.Context, volume, disk string) Outcome {
	whole := ctx
	return m.after(ctx, volume, func(ctx context.Context, p *part) error {
		v := &p.cfg.Volumes[0]
		found, err := p.search(ctx)
		if err == nil {
			err = p.refused(found)
		}
		if err != nil {
			return err
		}
		if len(found.Steps) != 1 || !found.Steps[0].Active || found.Steps[0].Copies == 0 {
			return hint.With(fmt.Errorf("volume %q is no mirror that is open", v.Name), "unlockctl open opens it; layout says whether it is a mirror")
		}
		p.cloud.start(ctx)
		a := unlock.Apply{Rec: p.rec, Log: p.Log.Infof, Kernel: p.Kernel}
		a.Keys = func(_ context.Context, w keys.Want) (keys.Got, error) { return p.cloud.keys()(ctx, w) }
		p.report.Result = status.ResultDone
		said := time.Time{}
		progress := func(done, total int64) {
			if time.Since(said) > 10*time.Second && total > 0 {
				p.Log.Infof("volume %q: %d%% of the data are on it", v.Name, done*100/total)
				said = time.Now()
			}
		}
		if err := a.Join(whole, &found.Steps[0], disk, unlock.NewEpoch, progress); err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
		p.Log.Infof("volume %q: a disk has joined its mirror, and has all data", v.Name)
		return nil
	})
}

// after does something about one volume.
func (m *Machine) after(ctx context.Context, volume string, do func(context.Context, *part) error) Outcome {
	p := m.part()
	p.after = true
	return p.run(ctx, func(ctx context.Context) error {
		if err := p.narrow(volume); err != nil {
			return err
		}
		return do(ctx, p)
	})
}

// narrow leaves one volume in the configuration, with its shares. The disks of those
// before it are still theirs.
func (p *part) narrow(volume string) error {
	i := slices.IndexFunc(p.cfg.Volumes, func(v config.Volume) bool { return v.Name == volume })
	if i < 0 {
		return &config.Error{File: p.cfg.File, Msg: fmt.Sprintf("no volume %q", volume), Hint: "unlockctl list shows those that are in it"}
	}
	if whole := p.cfg.Volumes[i].Device; whole.Kind == config.SelectShare {
		return hint.With(fmt.Errorf("volume %q is a share of volume %q", volume, whole.Value), "say it of that volume, with which all its shares come and go")
	}
	var chosen []config.Volume
	for j, v := range p.cfg.Volumes {
		if j != i && (v.Device.Kind != config.SelectShare || v.Device.Value != volume) {
			continue
		}
		v.Required, v.MayBeAbsent = true, false
		if v.OnFailure == config.FailReboot {
			v.OnFailure = config.FailStop
		}
		chosen = append(chosen, v)
	}
	p.before, p.cfg.Volumes = p.cfg.Volumes[:i], chosen
	return nil
}

// find plans for the volume. Unless it may be formatted, no file is made for it either.
func (p *part) find(ctx context.Context, format bool) (*plan.Plan, error) {
	if p.cfg.Volumes[0].Device.Kind != config.SelectFile {
		return p.search(ctx)
	}
	if format {
		return p.attach(p.Kernel, "/"), nil
	}
	return p.attach(existing{p.Kernel}, "/"), nil
}

// existing is a kernel that makes no files.
type existing struct{ unlock.Kernel }

func (e existing) Attach(root, file string, size int64, _ bool) (fsys.Loop, error) {
	l, err := e.Kernel.Attach(root, file, size, false)
	if errors.Is(err, fsys.ErrNoFile) {
		err = hint.With(err, "unlockctl open --format makes it, if the configuration lets it be formatted")
	}
	return l, err
}

// refuseFormats makes refusals of the steps that would format.
func refuseFormats(p *plan.Plan) {
	p.Steps = slices.DeleteFunc(p.Steps, func(s plan.Step) bool {
		if s.Active || !s.Format && !s.Mkfs {
			return false
		}
		r := &plan.Refusal{Volume: s.Volume, Reason: s.Members[0].Content.What + ", and this is no boot, which would format it", Hint: "unlockctl open --format does so, too"}
		if !s.Format {
			r.Reason = "its formatting was interrupted, and this is no boot, which would finish it"
		} else if s.Volume.Format == config.FormatEphemeral {
			r.Reason = "an ephemeral volume is made anew when it is opened, and this is no boot"
		}
		for _, m := range s.Members {
			r.Devices = append(r.Devices, m.Disk.Path)
		}
		p.Refusals = append(p.Refusals, r)
		return true
	})
}

// device returns the mapping of that name.
func (p *part) device(name string) (dm.Device, error) {
	d, ok, err := p.Kernel.Lookup(name)
	if err == nil && !ok {
		err = fmt.Errorf("mapping %s is not there", name)
	}
	return d, err
}

// mounted notes where the volume and its shares are mounted already.
func (p *part) mounted() error {
	for i := range p.cfg.Volumes {
		v := &p.cfg.Volumes[i]
		r := p.opened(v)
		if v.Mount == "" || r == nil {
			continue
		}
		d, err := p.device(v.Name)
		if err != nil {
			return err
		}
		places, err := p.Kernel.Mounts(d)
		if err != nil {
			return err
		}
		isMounted := func(dir string) bool { // where there is nothing of that name, nothing is mounted
			at, err := filepath.EvalSymlinks(dir)
			return err == nil && slices.ContainsFunc(places, func(m fsys.MountPoint) bool { return m.Dir == at })
		}
		if isMounted(v.Mount) {
			r.Mount = v.Mount
		}
		for _, b := range v.Binds {
			if isMounted(b.Path) {
				r.Binds = append(r.Binds, b.Path)
			}
		}
	}
	return nil
}

// enlarged says what came of the mapping, and has the file system follow.
func (p *part) enlarged(v *config.Volume, before dm.Device) error {
	d, err := p.device(v.Name)
	if err != nil {
		return err
	}
	size := func(d dm.Device) int64 { return int64(d.Table.Sectors) << dm.SectorShift }
	if size(d) == size(before) {
		p.Log.Infof("volume %q: %s has %d bytes, all that its disk has room for", v.Name, d.Path(), size(d))
	} else {
		p.Log.Infof("volume %q: %s has grown from %d to %d bytes", v.Name, d.Path(), size(before), size(d))
	}
	places, err := p.Kernel.Mounts(d)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(places, func(m fsys.MountPoint) bool { return fsys.CanGrow(m.Type) })
	if i < 0 {
		p.Log.Warnf("volume %q: no ext4, xfs or btrfs is mounted from it: what is on it keeps its size", v.Name)
		return nil
	}
	return p.rec.Step("grow", v.Name, func() error {
		grown, err := p.Kernel.Grow("/", places[i].Dir, places[i].Type, size(d))
		if err != nil {
			return fmt.Errorf("volume %q: %w", v.Name, err)
		}
		if grown {
			p.Log.Infof("volume %q: its file system has grown", v.Name)
		}
		return nil
	})
}
