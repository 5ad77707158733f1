package unlock

import (
	"fmt"
	"strings"

	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// errNotOurs: a mapping is there that has the name of a volume's, but maps something
// else.
var errNotOurs = hint.New("the mapping of that name is not what this volume would be",
	"close it, or choose another name: dmsetup table shows what it maps")

// Mapped returns the devices of a step that is mapped already, its own before those of
// the members of a stripe, if they are what the step would have made of its disks: a run
// that was given up may have left anything. A disk may have grown since.
func Mapped(k Kernel, s *plan.Step) ([]dm.Device, error) {
	if !s.Joined() {
		d, err := member(k, s.Name, &s.Members[0])
		return []dm.Device{d}, err
	}
	d, err := lookup(k, s.Name)
	if err != nil {
		return nil, err
	}
	if s.Copies > 0 {
		return mappedMirror(k, s, d)
	}
	devices, numbers := make([]dm.Device, len(s.Members)), make([]string, len(s.Members))
	for i := range s.Members {
		m := &s.Members[i]
		if m.LUKS == nil || m.LUKS.Set == nil || m.LUKS.Set.Index >= len(devices) {
			return nil, errNotOurs
		}
		at := m.LUKS.Set.Index
		if devices[at], err = member(k, fmt.Sprintf("%s_%d", s.Name, at), m); err != nil {
			return nil, err
		}
		numbers[at] = devices[at].Number()
	}
	if !d.Table.Maps(dm.Striped{Devices: numbers, Chunk: plan.Chunk >> dm.SectorShift, Sectors: d.Table.Sectors}) {
		return nil, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
	}
	return append([]dm.Device{d}, devices...), nil
}

// mappedMirror is Mapped of a mirror, which need not have all its members.
func mappedMirror(k Kernel, s *plan.Step, d dm.Device) ([]dm.Device, error) {
	members, _, err := taking(k, s, d)
	if err != nil {
		return nil, err
	}
	devices := []dm.Device{d}
	for i, m := range members {
		of, err := member(k, fmt.Sprintf("%s_%d", s.Name, i), m)
		if err != nil {
			return nil, err
		}
		for _, p := range partsOf(s, of.Name, of) {
			part, err := lookup(k, p.name)
			if err != nil {
				return nil, err
			}
			devices = append(devices, part)
		}
		devices = append(devices, of)
	}
	return devices, nil
}

// taking returns the members that take part in a mirror that is mapped, by their index, and
// its table, which is what the step would have made of them.
func taking(k Kernel, s *plan.Step, d dm.Device) (map[int]*plan.Member, dm.Raid, error) {
	members, t := map[int]*plan.Member{}, raid(s)
	for i := range s.Members {
		m := &s.Members[i]
		if m.LUKS == nil || m.LUKS.Set == nil || m.LUKS.Set.UUID != s.Set || m.LUKS.Set.Index >= s.Count {
			continue
		}
		at := m.LUKS.Set.Index
		name := fmt.Sprintf("%s_%d", s.Name, at)
		if _, ok, err := k.Lookup(name); err != nil {
			return nil, t, err
		} else if !ok {
			continue
		}
		of, err := member(k, name, m)
		if err != nil {
			continue // it is another disk's
		}
		var numbers []string
		for _, p := range partsOf(s, name, of) {
			part, err := lookup(k, p.name)
			if err != nil || !part.Table.Maps(p.Linear) {
				return nil, t, fmt.Errorf("%s: %w", of.Path(), errNotOurs)
			}
			numbers = append(numbers, part.Number())
		}
		m.Index, m.Mapping = at, name
		members[at], t.Members[at] = m, dm.RaidMember{Meta: numbers[0], Data: numbers[1]}
	}
	for i := range t.Members { // disks that have gone since, of which the mappings are left
		for _, p := range partsOf(s, fmt.Sprintf("%s_%d", s.Name, i), dm.Device{}) {
			part, ok, err := k.Lookup(p.name)
			switch {
			case err != nil:
				return nil, t, err
			case !ok || members[i] != nil || part.UUID != plan.PartUUID(s.Set, p.name):
			case t.Members[i].Meta == "":
				t.Members[i].Meta = part.Number()
			default:
				t.Members[i].Data = part.Number()
			}
		}
	}
	if !d.Table.Maps(t) {
		return nil, t, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
	}
	return members, t, nil
}

// Lacking is how many members a mirror that is open lacks, by its health (package dm). One
// that is being given its data is not counted.
func Lacking(health string) int {
	return len(health) - strings.Count(health, "A") - strings.Count(health, "a")
}

// lacking returns how many members of a mirror that is mapped are not in step.
func lacking(k Kernel, s *plan.Step) (n int, err error) {
	health, _, _, err := k.Health(s.Name)
	n = Lacking(health)
	for _, m := range s.Members { // a: also after a power cut, while what was being written is made the same
		if t := m.LUKS; t != nil && t.Set != nil && t.Set.UUID == s.Set && t.Set.State == luks.StateForming && t.Set.Index < len(health) && health[t.Set.Index] == 'a' {
			n++
		}
	}
	return n, err
}

// MappedShares returns the devices of a step's shares, which must be mapped from top.
func MappedShares(k Kernel, s *plan.Step, top dm.Device) ([]dm.Device, error) {
	var devices []dm.Device
	for i := range s.Shares {
		d, err := lookup(k, s.Shares[i].Name)
		if err != nil {
			return nil, err
		}
		if !d.Table.Maps(linear(&s.Shares[i], top)) {
			return nil, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
		}
		devices = append(devices, d)
	}
	return devices, nil
}

// member returns the mapping of that name, which must be of the payload of m.
func member(k Kernel, name string, m *plan.Member) (dm.Device, error) {
	d, err := lookup(k, name)
	if err != nil {
		return d, err
	}
	if m.LUKS != nil {
		t := crypt(m, m.LUKS.Header.Payload())
		t.Sectors = min(t.Sectors, d.Table.Sectors)
		if d.Table.Maps(t) {
			return d, nil
		}
	}
	return d, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
}

func lookup(k Kernel, name string) (dm.Device, error) {
	d, ok, err := k.Lookup(name)
	if err == nil && !ok {
		err = fmt.Errorf("mapping %s is gone", name)
	}
	return d, err
}

// crypt is the target that maps a payload.
func crypt(m *plan.Member, p *luks.Payload) dm.Crypt {
	return dm.Crypt{
		Device: fmt.Sprintf("%d:%d", m.Disk.Major, m.Disk.Minor),
		Offset: uint64(p.Offset) >> dm.SectorShift, Sectors: uint64(p.Size) >> dm.SectorShift,
		IVOffset: p.IVOffset, Cipher: p.Cipher, SectorSize: p.SectorSize, Key: p.Key,
		KeyName: fmt.Sprintf("cryptsetup:%s-d%d", p.UUID, p.Digest), Flags: p.Flags,
	}
}
