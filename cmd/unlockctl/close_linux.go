package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"unlock/cmd/unlockctl/internal/holders"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

type closeCmd struct {
	volumeFlags
	Yes bool `help:"Also close an ephemeral volume, whose data are lost with it."`
}

// Run unmounts a volume and removes its mappings, but none that the volume would not
// have. Nothing is forced, and nothing is done while somebody uses it.
func (c *closeCmd) Run(ctx context.Context, con console) error {
	v, cfg, err := c.find()
	if err != nil {
		return err
	}
	release, err := lockVolumes(ctx, con)
	if err != nil {
		return err
	}
	defer release()
	if v.Device.Kind == config.SelectShare {
		return hint.With(fmt.Errorf("volume %q is a share of volume %q", v.Name, v.Device.Value), "close that volume, with which all its shares go")
	}
	kernel := unlock.Running{}
	mapped, err := c.mapped(kernel, v, cfg)
	if err != nil {
		return err
	}
	if len(mapped) == 0 {
		_, err := fmt.Fprintf(con.out, "volume %q is not open\n", v.Name)
		return err
	}
	if v.Format == config.FormatEphemeral && !c.Yes {
		return usage(fmt.Sprintf("volume %q is ephemeral: nobody has its key, so that its data are lost once it is closed", v.Name), "--yes closes it")
	}
	if err := closable(ctx, kernel, v, sharesOf(v, cfg), mapped); err != nil {
		return err
	}
	if err := unmount(kernel, v, mapped); err != nil {
		return err
	}
	for _, d := range mapped {
		if err := kernel.Remove(d.Name); err != nil {
			return busy(err, append(holders.Mapped(held(d)), append(holders.Processes(held(d), nil), holders.Elsewhere(held(d))...)...))
		}
	}
	if err := os.Remove(openedFile(v.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, err = fmt.Fprintf(con.out, "volume %q is closed\n", v.Name)
	return err
}

// mapped returns the volume's mappings, those first that lie on others. A mapping of the
// volume's name that is not of its disks is an error.
func (c *closeCmd) mapped(k unlock.Kernel, v *config.Volume, cfg *config.Config) ([]dm.Device, error) {
	var active []dm.Device
	for _, name := range mappingNames(v) {
		d, ok, err := k.Lookup(name)
		if err != nil {
			return nil, err
		}
		if ok {
			active = append(active, d)
		}
	}
	if len(active) == 0 {
		return nil, nil
	}
	members, err := members(k, v, cfg)
	if err != nil {
		return nil, err
	}
	list, err := mappedShares(k, v, cfg, active)
	if err != nil {
		return nil, err
	}
	for _, d := range active {
		ours, err := isOurs(k, v, d, members)
		if err != nil && slices.Contains(v.Names(), d.Name) {
			return nil, err
		}
		if ours {
			list = append(list, d)
		}
	}
	return list, nil
}

// sharesOf are the volumes that are shares of v.
func sharesOf(v *config.Volume, cfg *config.Config) (list []config.Volume) {
	for _, w := range cfg.Volumes {
		if w.Device.Kind == config.SelectShare && w.Device.Value == v.Name {
			list = append(list, w)
		}
	}
	return list
}

// mappedShares returns the mappings of a volume's shares, which must be parts of it.
func mappedShares(k unlock.Kernel, v *config.Volume, cfg *config.Config, active []dm.Device) (list []dm.Device, err error) {
	for _, share := range sharesOf(v, cfg) {
		d, ok, err := k.Lookup(share.Name)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if d.Table.Kind != "linear" || len(d.Table.Params) == 0 || d.Table.Params[0] != active[0].Number() {
			return nil, hint.With(fmt.Errorf("volume %q: %s is no part of %s", share.Name, d.Path(), active[0].Path()), "dmsetup table shows what it maps; dmsetup remove removes it")
		}
		list = append(list, d)
	}
	return list, nil
}

// members are the disks of a volume that are here.
func members(k unlock.Kernel, v *config.Volume, cfg *config.Config) ([]*plan.Candidate, error) {
	if v.Device.Kind != config.SelectFile {
		found, err := present(cfg)
		return plan.Select(v, found), err
	}
	l, err := k.Attach("/", v.Device.Value, v.Size, false)
	if err != nil {
		return nil, err
	}
	return []*plan.Candidate{unlock.InspectFile(luks.Limits{}, v.Device.Value, l)}, nil
}

// isOurs reports whether a mapping is one that the volume would have: made of one of its
// disks, or of its disks' mappings. Where no disk is here any more, what was recorded
// when it was opened decides. The error says why not.
func isOurs(k unlock.Kernel, v *config.Volume, d dm.Device, members []*plan.Candidate) (bool, error) {
	s := &plan.Step{Volume: v, Name: d.Name}
	if len(members) == 0 || s.Regard(members) != nil { // a mirror goes on without a disk that was detached
		for _, uuid := range recorded(v.Name) {
			if d.UUID == plan.CryptUUID("LUKS2", uuid, d.Name) || d.UUID == plan.CryptUUID("LUKS1", uuid, d.Name) {
				return true, nil
			}
		}
	}
	if len(members) == 0 {
		return false, hint.With(fmt.Errorf("volume %q: no device %s is here, and no record says that %s was made of it", v.Name, v.Device, d.Path()),
			"dmsetup table shows what it maps; cryptsetup close removes it")
	}
	for _, m := range members {
		if m.LUKS != nil && m.LUKS.Set != nil && d.UUID == plan.PartUUID(m.LUKS.Set.UUID, d.Name) {
			return true, nil
		}
	}
	if d.Table.Kind == "striped" || d.Table.Kind == "raid" {
		for _, m := range members {
			s.Members = append(s.Members, plan.Member{Candidate: m})
		}
		_, err := unlock.Mapped(k, s)
		return err == nil, err
	}
	var err error
	for _, m := range members {
		of := &plan.Step{Volume: v, Name: d.Name, Members: []plan.Member{{Candidate: m}}}
		if _, err = unlock.Mapped(k, of); err == nil {
			return true, nil
		}
	}
	return false, err
}

// recorded are the UUIDs of the headers that a volume had when it was last opened.
func recorded(volume string) []string {
	var uuids []string
	for _, file := range []string{status.DefaultFile, openedFile(volume)} {
		b, err := status.Read(file)
		if err != nil {
			continue // then it is no witness
		}
		for _, r := range b.Volumes {
			if r.Name == volume && r.Mapping != "" {
				uuids = append(uuids, r.UUIDs...)
			}
		}
	}
	return uuids
}

func held(d dm.Device) holders.Device {
	return holders.Device{Path: d.Path(), Major: d.Major, Minor: d.Minor}
}

// closable looks for what would stand in the way, before anything is done.
func closable(ctx context.Context, k unlock.Kernel, v *config.Volume, shares []config.Volume, mapped []dm.Device) error {
	var ours []string
	for _, v := range append([]config.Volume{*v}, shares...) {
		for _, b := range append([]config.Bind{{Path: v.Mount}}, v.Binds...) {
			if at, err := filepath.EvalSymlinks(b.Path); err == nil && v.Mount != "" {
				ours = append(ours, at)
			}
		}
	}
	for _, d := range mapped {
		places, err := k.Mounts(d)
		if err != nil {
			return err
		}
		for _, p := range places {
			if !slices.Contains(ours, p.Dir) {
				return hint.With(fmt.Errorf("volume %q: %s is mounted on %s, which is not in the configuration", v.Name, d.Path(), p.Dir), "umount it first")
			}
		}
		var others []string
		for _, h := range holders.Mapped(held(d)) {
			if !slices.ContainsFunc(mapped, func(o dm.Device) bool { return h == "mapping "+o.Name }) {
				others = append(others, h)
			}
		}
		if others = append(others, openers(ctx, d)...); len(others) > 0 {
			return busy(fmt.Errorf("volume %q: %s is in use", v.Name, d.Path()), others)
		}
	}
	return nil
}

// openers are the processes that have a mapping open, but for those that look at it for a
// moment, as udev does.
func openers(ctx context.Context, d dm.Device) (who []string) {
	for range 20 {
		if who = holders.Processes(held(d), nil); len(who) == 0 || ctx.Err() != nil {
			return who
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return who
}

// unmount unmounts the volume, also if that was done more than once.
func unmount(k unlock.Kernel, v *config.Volume, mapped []dm.Device) error {
	for _, d := range mapped {
		places, err := k.Mounts(d)
		if err != nil {
			return err
		}
		for _, p := range places {
			if err := unix.Unmount(p.Dir, unix.UMOUNT_NOFOLLOW); err != nil {
				return busy(fmt.Errorf("volume %q: unmounting %s: %w", v.Name, p.Dir, err), append(below(p), holders.Processes(held(d), []string{p.Dir})...))
			}
		}
	}
	return nil
}

// below are the places below a mount where other things are mounted.
func below(p fsys.MountPoint) []string {
	data, _ := os.ReadFile("/proc/self/mountinfo")
	var found []string
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], p.Dir+"/") {
			found = append(found, "mount "+fields[4])
		}
	}
	return found
}

// busy says who is in the way.
func busy(err error, who []string) error {
	if len(who) == 0 {
		return err
	}
	return hint.With(fmt.Errorf("%w: %s", err, holders.List(who)), "end what uses it, then say it again; it was not forced")
}
