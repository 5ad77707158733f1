package unlock

import (
	"context"
	"fmt"

	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/plan"
)

// enlarge gives the mapping of a step that is mapped already the size that its disk has
// now. The kernel wants the key for that, as the keyring of who mapped it is gone. A
// mapping that has that size stays as it is, and no key is asked for.
func (a *Apply) enlarge(ctx context.Context, s *plan.Step, d dm.Device, ring *keyring) Result {
	r := Result{Step: s, Device: d}
	if s.Joined() || d.Table.Sectors == uint64(s.Members[0].LUKS.Header.Payload().Size)>>dm.SectorShift {
		return r
	}
	fail := func(err error) Result {
		r.Err = fmt.Errorf("volume %q: %w", s.Name, err)
		return r
	}
	if s.Volume.Key.Source.InHeader() && s.Members[0].LUKS.KMS == nil {
		return fail(errNoToken)
	}
	key, err := ring.get(ctx, opening(s))
	r.KMSKey, r.Requests = key.kmsKey, key.requests
	if err == nil {
		err = a.resize(ctx, s, key)
	}
	if err == nil {
		r.Device, err = lookup(a.Kernel, s.Name)
	}
	if err != nil {
		return fail(err)
	}
	return r
}

var errNoToken = hint.New("the key source is \"header\", but the LUKS header holds no aws-kms token",
	"add one with unlockctl enroll, or configure the source that its passphrase came from")

// opening is the step that would open what is mapped already.
func opening(s *plan.Step) *plan.Step {
	open, l := *s, s.Members[0].LUKS
	open.Active, open.Set = false, l.UUID
	if l.Set != nil {
		open.Set = l.Set.UUID
	}
	return &open
}

func (a *Apply) resize(ctx context.Context, s *plan.Step, key *key) error {
	members, release, err := a.hold(s)
	if err != nil {
		return err
	}
	defer release()
	m := members[0]
	return a.Rec.Step("resize", m.Disk.Name, func() error {
		p, err := m.header.OpenWith(ctx, key.deriver)
		if err != nil {
			return fmt.Errorf("opening %s: %w", m.Disk.Path, err)
		}
		defer p.Wipe()
		return a.Kernel.Resize(m.Mapping, crypt(m.Member, p), dm.Options{ReadOnly: m.Disk.ReadOnly})
	})
}
