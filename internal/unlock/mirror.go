package unlock

import (
	"context"
	"errors"
	"fmt"

	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// A mirror lies over the members' decrypted payloads, as a stripe does, not under them: each
// disk has its own header, so that forming, keys, rotation and recovery are what they are of
// any set, nothing that an attacker may have written is read before it is decrypted, and one
// disk alone opens with cryptsetup. The price is that each write is encrypted for each copy.
// The first part of a payload is dm-raid's own, with a bitmap of what is being written, so
// that after a power cut only that is made the same again.

// mirror leaves out members that are behind by what the kernel wrote on them, maps the parts
// of the others, has their tokens say who is missing, and maps the mirror. made are the
// mappings that it made, the mirror last, also on failure.
func (a *Apply) mirror(ctx context.Context, s *plan.Step, key *key, members []*held, devices []dm.Device, sectors uint64) (top dm.Device, made []string, err error) {
	if int64(sectors)<<dm.SectorShift < plan.MetaSize+s.Size {
		return top, nil, fmt.Errorf("a disk of the mirror has become smaller than the %d bytes that it had", plan.MetaSize+s.Size)
	}
	if !s.Unready {
		err = a.Rec.Step("compare", s.Name, func() (err error) {
			members, devices, err = a.inStepOf(ctx, s, key, members, devices)
			return err
		})
		if err != nil {
			return top, nil, err
		}
	}
	t := raid(s)
	for i := range members {
		parts, err := a.parts(s, members[i].Member, devices[i])
		for _, p := range parts {
			made = append(made, p.Name)
		}
		if err == nil && s.Unready {
			err = a.Kernel.Clear(parts[0], plan.MetaSize)
		}
		if err != nil {
			return top, made, err
		}
		t.Members[members[i].Index] = dm.RaidMember{Meta: parts[0].Number(), Data: parts[1].Number()}
	}
	if s.Tell {
		if err := a.mark(s, members, luks.StateReady, key); err != nil {
			return top, made, err
		}
	}
	top, err = a.Kernel.Create(s.Name, plan.MirrorUUID(s.Set), t, dm.Options{})
	if err == nil {
		made = append(made, top.Name)
	}
	return top, made, err
}

// inStepOf returns those of the members that are in step by what the kernel wrote on them,
// too, and unmaps the others.
func (a *Apply) inStepOf(ctx context.Context, s *plan.Step, key *key, members []*held, devices []dm.Device) (left []*held, of []dm.Device, err error) {
	records := map[int]plan.Record{}
	for i, m := range members {
		if records[m.Index], err = a.record(s, m.Member, devices[i]); err != nil {
			return nil, nil, err
		}
	}
	behind := s.Out
	dropped, ok := plan.Dropped(records)
	if !ok {
		return nil, nil, plan.ErrApart
	}
	if err := s.Leave(dropped, NewEpoch); err != nil {
		return nil, nil, err
	}
	for i, m := range members {
		if dropped[m.Index] {
			a.Log("%s: the others of the mirror have gone on without it", m.Disk.Path)
			if err := a.Kernel.Remove(devices[i].Name); err != nil {
				return nil, nil, err
			}
			continue
		}
		left, of = append(left, m), append(of, devices[i])
	}
	for _, c := range behind {
		if !s.Behind(c) {
			continue
		}
		r, err := a.recordOf(ctx, s, key, c)
		if err != nil {
			a.Log("%v; it is left out", err) // nothing is written to it
		} else if r.Apart(c.LUKS.Set, &s.Mirror) {
			return nil, nil, fmt.Errorf("%s: %w", c.Disk.Path, plan.ErrApart)
		}
	}
	return left, of, nil
}

// record is what the kernel wrote on a member, whose payload d maps.
func (a *Apply) record(s *plan.Step, m *plan.Member, d dm.Device) (plan.Record, error) {
	b, err := a.Kernel.Read(d, plan.RecordSize)
	if err != nil {
		return plan.Record{}, hint.Disk(fmt.Errorf("reading %s: %w", m.Disk.Path, err))
	}
	r, err := plan.ParseRecord(b, m.Index, s.Count)
	if err != nil {
		err = fmt.Errorf("%s: %w", m.Disk.Path, err)
	}
	return r, err
}

// recordOf is record of a member that is not mapped, and is not afterwards.
func (a *Apply) recordOf(ctx context.Context, s *plan.Step, key *key, c *plan.Candidate) (r plan.Record, err error) {
	m := plan.Member{Candidate: c, Index: c.LUKS.Set.Index, Mapping: fmt.Sprintf("%s_%d", s.Name, c.LUKS.Set.Index)}
	dev, err := a.openMember(&m, false, false)
	if err != nil {
		return r, err
	}
	defer dev.Close()
	if err := a.unchanged(dev, &m); err != nil {
		return r, err
	}
	p, err := c.LUKS.Header.OpenWith(ctx, key.deriver)
	if err != nil {
		return r, fmt.Errorf("opening %s: %w", c.Disk.Path, err)
	}
	defer p.Wipe()
	d, err := a.mapPayload(s, &m, p)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.Kernel.Remove(d.Name)) }()
	return a.record(s, &m, d)
}

// raid is the target that maps a mirror, whose members are not set yet.
func raid(s *plan.Step) dm.Raid {
	return dm.Raid{Members: make([]dm.RaidMember, s.Count), Chunk: uint64(s.Chunk) >> dm.SectorShift,
		Sectors: uint64(s.Size*int64(s.Count/s.Copies)) >> dm.SectorShift, New: s.Unready}
}

// part is a part of a member's payload.
type part struct {
	name string
	dm.Linear
}

// partsOf returns dm-raid's part of a member's payload, which d maps, and that of the data.
func partsOf(s *plan.Step, mapping string, d dm.Device) []part {
	const meta = plan.MetaSize >> dm.SectorShift
	return []part{{mapping + "_meta", dm.Linear{Device: d.Number(), Sectors: meta}},
		{mapping + "_data", dm.Linear{Device: d.Number(), Offset: meta, Sectors: uint64(s.Size) >> dm.SectorShift}}}
}

// parts maps them, and returns on failure those that it has mapped.
func (a *Apply) parts(s *plan.Step, m *plan.Member, d dm.Device) (list []dm.Device, err error) {
	for _, p := range partsOf(s, m.Mapping, d) {
		d, err := a.Kernel.Create(p.name, plan.PartUUID(s.Set, p.name), p.Linear, dm.Options{ReadOnly: m.Disk.ReadOnly, Internal: true})
		if err != nil {
			return list, err
		}
		list = append(list, d)
	}
	return list, nil
}
