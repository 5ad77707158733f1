package unlock

import (
	"fmt"

	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// errNotOurs: a mapping is there that has the name of a volume's, but maps something
// else.
var errNotOurs = hint.New("the mapping of that name is not what this volume would be",
	"close it, or choose another name: dmsetup table shows what it maps")

// mapped returns the device of a step that is mapped already, if that is what the step
// would have made of its disks: a run that was given up may have left anything.
func (a *Apply) mapped(s *plan.Step) (dm.Device, error) {
	if !s.Striped() {
		return a.member(s.Name, &s.Members[0])
	}
	d, err := a.lookup(s.Name)
	if err != nil {
		return d, err
	}
	devices := make([]string, len(s.Members))
	for i := range s.Members {
		m := &s.Members[i]
		if m.LUKS == nil || m.LUKS.Set == nil || m.LUKS.Set.Index >= len(devices) {
			return d, errNotOurs
		}
		at := m.LUKS.Set.Index
		below, err := a.member(fmt.Sprintf("%s_%d", s.Name, at), m)
		if err != nil {
			return d, err
		}
		devices[at] = below.Number()
	}
	if !d.Table.Maps(dm.Striped{Devices: devices, Chunk: plan.Chunk >> dm.SectorShift, Sectors: d.Table.Sectors}) {
		return d, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
	}
	return d, nil
}

// member returns the mapping of that name, which must be of the payload of m.
func (a *Apply) member(name string, m *plan.Member) (dm.Device, error) {
	d, err := a.lookup(name)
	if err != nil {
		return d, err
	}
	if m.LUKS == nil || !d.Table.Maps(crypt(m, m.LUKS.Header.Payload())) {
		return d, fmt.Errorf("%s: %w", d.Path(), errNotOurs)
	}
	return d, nil
}

func (a *Apply) lookup(name string) (dm.Device, error) {
	d, ok, err := a.Kernel.Lookup(name)
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
