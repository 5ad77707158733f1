package unlock

import (
	"fmt"

	"unlock/internal/dm"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// A mirror lies over the members' decrypted payloads, as a stripe does, not under them: each
// disk has its own header, so that forming, keys, rotation and recovery are what they are of
// any set, nothing that an attacker may have written is read before it is decrypted, and one
// disk alone opens with cryptsetup. The price is that each write is encrypted for each copy.
// The first part of a payload is dm-raid's own, with a bitmap of what is being written, so
// that after a power cut only that is made the same again.

// mirror maps the parts of the members, has the members' tokens say who is missing, and maps
// the mirror. made are the mappings that it made, the mirror last, also on failure.
func (a *Apply) mirror(s *plan.Step, members []*held, devices []dm.Device, sectors uint64) (top dm.Device, made []string, err error) {
	if int64(sectors)<<dm.SectorShift < plan.MetaSize+s.Size {
		return top, nil, fmt.Errorf("a disk of the mirror has become smaller than the %d bytes that it had", plan.MetaSize+s.Size)
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
		if err := a.mark(s, members, luks.StateReady); err != nil {
			return top, made, err
		}
	}
	top, err = a.Kernel.Create(s.Name, plan.MirrorUUID(s.Set), t, dm.Options{})
	if err == nil {
		made = append(made, top.Name)
	}
	return top, made, err
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
