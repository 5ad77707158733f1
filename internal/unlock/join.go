package unlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"unlock/internal/block"
	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// joinPause is between two looks at how far a disk has come.
const joinPause = time.Second

// Join has a disk take part in a mirror that is open and lacks one, and returns when it has
// all data. s is the step of what is open, disk the path of the disk; "": the only one that
// may be meant. Until it has all data it counts as behind, whatever happens meanwhile; Join
// then goes on with it, or begins again. progress may be called often.
func (a *Apply) Join(ctx context.Context, s *plan.Step, disk string, newEpoch func() string, progress func(done, total int64)) error {
	ring := &keyring{keys: a.Keys, rec: a.Rec, log: a.Log}
	defer ring.wipe()
	top, err := lookup(a.Kernel, s.Name)
	if err != nil {
		return err
	}
	taking, t, err := taking(a.Kernel, s, top)
	if err != nil {
		return err
	}
	health, _, _, err := a.Kernel.Health(s.Name)
	if err != nil {
		return err
	}
	if i := strings.IndexByte(health, 'D'); i >= 0 {
		return givenUp(i, health)
	}
	m, known, err := joiner(s, taking, disk)
	if err != nil {
		return err
	}
	open, joining := *s, *s
	open.Members, open.Active = nil, false
	for i := range s.Count {
		if o := taking[i]; o != nil && i != m.Index && o.LUKS.Set.State == luks.StateReady {
			open.Members = append(open.Members, *o)
		}
	}
	left, _ := luks.ParseLeft(known.LUKS.Set.Left) // which was checked when it was read
	delete(left, m.Index)
	joining.Members, joining.Mirror, joining.Unready = []plan.Member{*m}, *known.LUKS.Set, true
	joining.Mirror.Left = left.String()
	if taking[m.Index] == nil {
		if err := a.join(ctx, &open, &joining, t, ring); err != nil {
			return err
		}
	}
	if err := a.inStep(ctx, s.Name, m.Index, progress); err != nil {
		return err
	}
	now := joining.Mirror
	open.Mirror.Before, open.Mirror.Epoch, open.Mirror.Left = now.Epoch, newEpoch(), now.Left
	return a.joined(&open, m)
}

// givenUp is about a disk that the kernel has dropped from a mirror that is open. Only when
// it is opened again do tokens say so.
func givenUp(index int, health string) error {
	return hint.With(fmt.Errorf("the kernel has given up disk %d of the mirror (%s)", index+1, health),
		"dmesg says why; unlockctl close and open, or a reboot, opens the mirror without it, and unlockctl join then has it, or another, take part")
}

// joiner chooses the disk that joins, and one of those that are in step.
func joiner(s *plan.Step, taking map[int]*plan.Member, disk string) (m, known *plan.Member, err error) {
	free, whole := -1, true
	for i := range s.Count {
		switch m := taking[i]; {
		case m == nil:
			if whole = false; free < 0 {
				free = i
			}
		case m.LUKS.Set.State != luks.StateReady:
			whole = false
		default:
			known = m
		}
	}
	if known == nil || whole {
		return nil, nil, fmt.Errorf("all %d disks of the mirror are in step", s.Count)
	}
	var may []plan.Member
	var reasons []error
	for _, m := range s.Members {
		may, reasons = mayJoin(s, taking, known, free, disk, m, may, reasons)
	}
	switch {
	case len(may) == 0 && len(reasons) > 0:
		return nil, nil, hint.All(reasons...)
	case len(may) == 0:
		return nil, nil, hint.New("no disk is here that could join the mirror", "attach one, blank and at least as large as the others")
	case len(may) > 1:
		var paths []string
		for _, m := range may {
			paths = append(paths, m.Disk.Path)
		}
		return nil, nil, hint.With(fmt.Errorf("several disks could join the mirror: %s", strings.Join(paths, ", ")), "name one of them")
	}
	may[0].Mapping = fmt.Sprintf("%s_%d", s.Name, may[0].Index)
	return &may[0], known, nil
}

// errMayHold is what joining a disk would overwrite.
func errMayHold(m *plan.Member) error {
	return hint.With(fmt.Errorf("%s may hold data that the others lack", m.Disk.Path), "to give them up, "+anew(m))
}

func anew(m *plan.Member) string {
	return "blkdiscard --zeroout " + m.Disk.Path + ", then join it as a new disk"
}

// mayJoin adds a disk to those that may join, or why it may not to the reasons.
func mayJoin(s *plan.Step, taking map[int]*plan.Member, known *plan.Member, free int, disk string, m plan.Member, may []plan.Member, reasons []error) ([]plan.Member, []error) {
	if disk != "" && m.Disk.Path != disk {
		return may, reasons
	}
	if m.LUKS != nil && m.LUKS.Set != nil && m.LUKS.Set.UUID == s.Set {
		t := m.LUKS.Set
		in := taking[t.Index]
		standing, ok := plan.Judge([]*luks.SetToken{known.LUKS.Set, t})
		switch m.Index = t.Index; {
		case in != nil && in.Disk.Path == m.Disk.Path && t.State == luks.StateReady: // it is in step
			return may, reasons
		case in != nil && in.Disk.Path != m.Disk.Path:
			return may, append(reasons, hint.With(fmt.Errorf("%s was disk %d of the mirror, which is %s now", m.Disk.Path, t.Index+1, in.Disk.Path), "to give up what is on it, "+anew(&m)))
		case t.State != luks.StateForming && (!ok || standing[1] != plan.Behind):
			return may, append(reasons, errMayHold(&m))
		}
		return append(may, m), reasons
	}
	switch {
	case m.Content.Kind != block.Blank && m.Content.Kind != block.Begun:
		return may, append(reasons, fmt.Errorf("%s holds %s", m.Disk.Path, m.Content.What))
	case free < 0:
		return may, append(reasons, fmt.Errorf("no place of the mirror is free for %s", m.Disk.Path))
	case m.Disk.Size < luks.DataOffset+plan.MetaSize+s.Size:
		return may, append(reasons, fmt.Errorf("%s is smaller than the others", m.Disk.Path))
	}
	m.Index, m.UUID = free, newUUID()
	return append(may, m), reasons
}

// join marks a disk as one that is not to be used, or formats it, and has the mirror write
// to it. s has those that are in step as its members.
func (a *Apply) join(ctx context.Context, s, joining *plan.Step, t dm.Raid, ring *keyring) (err error) {
	key, err := ring.get(ctx, s)
	if err != nil {
		return err
	}
	m := &held{Member: &joining.Members[0]}
	was := m.LUKS != nil && m.LUKS.Set.State == luks.StateReady // part of the mirror
	if m.LUKS == nil {
		with := *key
		if of := s.Members[0].LUKS.KMS; of != nil {
			with.blob = &keys.Blob{Ciphertext: of.Ciphertext, KeyARN: of.Key, Context: of.Context}
		}
		if m.header, err = a.formatMember(joining, m.Member, &with, luks.StateForming); err != nil {
			return err
		}
	} else {
		if m.dev, err = a.openMember(m.Member, true, false); err != nil {
			return err
		}
		defer m.dev.Close()
		if err = a.unchanged(m.dev, m.Member); err != nil {
			return err
		}
		m.header = m.LUKS.Header
	}
	p, err := m.header.OpenWith(ctx, key.deriver)
	if err != nil {
		return hint.With(fmt.Errorf("opening %s: %w", m.Disk.Path, err), "to give up what is on it, "+anew(m.Member))
	}
	defer p.Wipe()
	var mapped []string
	defer func() {
		for i := len(mapped) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, a.Kernel.Remove(mapped[i]))
		}
	}()
	d, err := a.mapPayload(joining, m.Member, p)
	if err != nil {
		return err
	}
	mapped = append(mapped, d.Name)
	if was {
		if err := a.nothingLost(s, m.Member, d); err != nil {
			return err
		}
	}
	if m.dev != nil {
		if err := m.header.PutSet(m.dev, token(joining, m.Member, luks.StateForming, key)); err != nil {
			return fmt.Errorf("marking %s: %w", m.Disk.Path, err)
		}
	}
	parts, err := a.parts(joining, m.Member, d)
	for _, p := range parts {
		mapped = append(mapped, p.Name)
	}
	if err == nil {
		err = a.Kernel.Clear(parts[0], plan.MetaSize)
	}
	if err != nil {
		return err
	}
	t.Members[m.Index] = dm.RaidMember{Meta: parts[0].Number(), Data: parts[1].Number()}
	t.Rebuild = []int{m.Index}
	return a.Kernel.Reload(s.Name, t)
}

// nothingLost returns an error unless a member that is behind by its token, and whose payload
// d maps, is so by what the kernel wrote on it, too.
func (a *Apply) nothingLost(s *plan.Step, m *plan.Member, d dm.Device) error {
	r, err := a.record(s, m, d)
	switch {
	case err != nil:
		return hint.With(err, "to give up what is on it, "+anew(m))
	case r.Apart(m.LUKS.Set, s.Members[0].LUKS.Set):
		return errMayHold(m)
	}
	return nil
}

// inStep waits until a member has all data.
func (a *Apply) inStep(ctx context.Context, name string, index int, progress func(done, total int64)) error {
	for {
		health, done, total, err := a.Kernel.Health(name)
		switch {
		case err != nil:
			return err
		case index >= len(health) || health[index] != 'A' && health[index] != 'a':
			return givenUp(index, health)
		case health[index] == 'A':
			return nil
		}
		progress(done, total)
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// joined has the tokens say that a member is in step: its own first. Until then it counts as
// behind, and after that the others, which s has as its members, count as not told yet.
func (a *Apply) joined(s *plan.Step, m *plan.Member) error {
	if err := a.tell(s, m); err != nil {
		return err
	}
	for i := range s.Members {
		if err := a.tell(s, &s.Members[i]); err != nil {
			return err
		}
	}
	return nil
}

// tell writes the token of a member that is in step, whatever its header has become.
func (a *Apply) tell(s *plan.Step, m *plan.Member) error {
	dev, err := a.openMember(m, true, false)
	if err != nil {
		return err
	}
	defer dev.Close()
	h, err := luks.Read(dev, m.Disk.Size, a.Limits)
	if err == nil {
		err = h.PutSet(dev, token(s, m, luks.StateReady, &key{}))
	}
	if err != nil {
		return fmt.Errorf("marking %s as %s: %w", m.Disk.Path, luks.StateReady, err)
	}
	return nil
}
