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
	m, known, err := joiner(s, taking, disk)
	if err != nil {
		return err
	}
	joining := *s
	joining.Members, joining.Mirror, joining.Unready = []plan.Member{*m}, *known, true
	if taking[m.Index] == nil {
		if err := a.join(ctx, s, &joining, t, ring); err != nil {
			return err
		}
	}
	if err := a.inStep(ctx, s.Name, m.Index, progress); err != nil {
		return err
	}
	return a.joined(s, taking, m, *known, newEpoch)
}

// joiner chooses the disk that joins, and a token of those that are in step.
func joiner(s *plan.Step, taking map[int]*plan.Member, disk string) (*plan.Member, *luks.SetToken, error) {
	var known *luks.SetToken
	free := -1
	for i := range s.Count {
		switch m := taking[i]; {
		case m == nil || m.LUKS.Set.State == luks.StateForming:
			if free < 0 {
				free = i
			}
		case known == nil:
			known = m.LUKS.Set
		}
	}
	if known == nil || free < 0 {
		return nil, nil, fmt.Errorf("all %d disks of the mirror are in step", s.Count)
	}
	var may []plan.Member
	var reasons []error
	for _, m := range s.Members {
		set := m.Candidate.LUKS
		switch {
		case disk != "" && m.Disk.Path != disk:
		case set != nil && set.Set != nil && set.Set.UUID == s.Set:
			if in := taking[set.Set.Index]; in != nil && in.Disk.Path == m.Disk.Path && set.Set.State != luks.StateForming {
				continue // it is in step
			}
			m.Index = set.Set.Index
			if standing, ok := plan.Judge([]*luks.SetToken{known, set.Set}); set.Set.State != luks.StateForming && (!ok || standing[1] != plan.Behind) {
				reasons = append(reasons, hint.With(fmt.Errorf("%s may hold data that the others lack", m.Disk.Path),
					"to give them up, blkdiscard --zeroout "+m.Disk.Path+", then join it as a new disk"))
				continue
			}
			may = append(may, m)
		case m.Content.Kind == block.Blank || m.Content.Kind == block.Begun:
			if m.Disk.Size < luks.DataOffset+plan.MetaSize+s.Size {
				reasons = append(reasons, fmt.Errorf("%s is smaller than the others", m.Disk.Path))
				continue
			}
			m.Index = free
			may = append(may, m)
		default:
			reasons = append(reasons, fmt.Errorf("%s holds %s", m.Disk.Path, m.Content.What))
		}
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

// join marks a disk as one that is not to be used, or formats it, and has the mirror write
// to it.
func (a *Apply) join(ctx context.Context, s, joining *plan.Step, t dm.Raid, ring *keyring) (err error) {
	key, err := ring.get(ctx, opening(s))
	if err != nil {
		return err
	}
	m := &held{Member: &joining.Members[0]}
	if m.LUKS == nil {
		of := s.Members[0].LUKS.KMS
		for _, o := range s.Members {
			if o.LUKS != nil && o.LUKS.Set != nil && o.LUKS.Set.UUID == s.Set {
				of = o.LUKS.KMS
			}
		}
		with := *key
		if of != nil {
			with.blob = &keys.Blob{Ciphertext: of.Ciphertext, KeyARN: of.Key, Context: of.Context}
		}
		if m.header, err = a.formatMember(joining, m.Member, &with, luks.StateForming); err != nil {
			return err
		}
	} else {
		dev, err := a.openMember(m.Member, true, true)
		if err != nil {
			return err
		}
		m.header = m.LUKS.Header
		err = errors.Join(a.unchanged(dev, m.Member), nil)
		if err == nil {
			err = m.header.PutSet(dev, token(joining, m.Member, luks.StateForming))
		}
		if err = errors.Join(err, dev.Close()); err != nil {
			return fmt.Errorf("marking %s: %w", m.Disk.Path, err)
		}
	}
	p, err := m.header.OpenWith(ctx, key.deriver)
	if err != nil {
		return fmt.Errorf("opening %s: %w", m.Disk.Path, err)
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

// inStep waits until a member has all data.
func (a *Apply) inStep(ctx context.Context, name string, index int, progress func(done, total int64)) error {
	for {
		health, done, total, err := a.Kernel.Health(name)
		switch {
		case err != nil:
			return err
		case index >= len(health) || health[index] != 'A' && health[index] != 'a':
			return hint.With(fmt.Errorf("the kernel has given up disk %d of the mirror (%s)", index+1, health), hint.DiskFails)
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
// behind, and after that the others count as not told yet.
func (a *Apply) joined(s *plan.Step, taking map[int]*plan.Member, m *plan.Member, known luks.SetToken, newEpoch func() string) error {
	left, err := luks.ParseLeft(known.Left)
	if err != nil {
		return err
	}
	delete(left, m.Index)
	now := *s
	now.Mirror = known
	now.Mirror.Before, now.Mirror.Epoch, now.Mirror.Left = known.Epoch, newEpoch(), left.String()
	if err := a.tell(&now, m); err != nil {
		return err
	}
	for i, o := range taking {
		if i != m.Index {
			if err := a.tell(&now, o); err != nil {
				return err
			}
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
		err = h.PutSet(dev, token(s, m, luks.StateReady))
	}
	if err != nil {
		return fmt.Errorf("marking %s as %s: %w", m.Disk.Path, luks.StateReady, err)
	}
	return nil
}
