// Package unlock does what package plan decides: Search finds the disks and reads what
// is on them, Files does so for volumes in files of the new root, Apply carries a plan out.
package unlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys/fsopt"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
)

// Apply carries out plans.
type Apply struct {
	Keys   Keys
	Limits luks.Limits
	Rec    *status.Recorder
	Log    func(format string, args ...any)
	// Ask says why and asks the operator for a passphrase of a volume whose policy is to
	// prompt; the caller wipes it. It may wait for ever.
	Ask    func(volume string, why error) (*secret.Bytes, error)
	Kernel Kernel
	// Ended, if not nil, is called as each step ends, several at once.
	Ended   func(r Result)
	Enlarge bool // what is mapped already gets the size that its disk has now
	// Open opens a disk, exclusively where nobody else may have it; nil: the device.
	Open func(d block.Disk, write, exclusive bool) (Disk, error)
}

// tries is how often a passphrase is asked for.
const tries = 3

// Result is what became of a step.
type Result struct {
	Step   *plan.Step
	Share  *plan.Share // nil: it is about the step's own device
	Device dm.Device   // zero if Err is not nil
	KMSKey string      // ARN that AWS says it used
	// Requests are the ids of the requests by which the key was had, whoever made them.
	Requests []string
	Err      error
}

// Run carries out all steps side by side and returns their results in the order
// of the plan. Steps that need the same key share one request for it. Where a
// step fails, its mappings are removed; headers that it has written stay, marked
// as unfinished, for the next boot to complete.
func (a *Apply) Run(ctx context.Context, p *plan.Plan) []Result {
	ring := &keyring{keys: a.Keys, rec: a.Rec, log: a.Log}
	defer ring.wipe()
	of := make([][]Result, len(p.Steps))
	_ = parallel(len(p.Steps), func(i int) error {
		of[i] = a.step(ctx, &p.Steps[i], ring)
		if a.Ended != nil {
			for _, r := range of[i] {
				a.Ended(r)
			}
		}
		return nil
	})
	return slices.Concat(of...)
}

// Ends returns the results of a step: of its own device, then of its shares, which came
// to the same.
func Ends(r Result, shares []dm.Device) []Result {
	list := []Result{r}
	for i := range r.Step.Shares {
		of := r
		if of.Share, of.Device = &r.Step.Shares[i], (dm.Device{}); r.Err == nil {
			of.Device = shares[i]
		}
		list = append(list, of)
	}
	return list
}

// Name is that of the device, which is the volume's but of separate disks.
func (r *Result) Name() string {
	if r.Share != nil {
		return r.Share.Name
	}
	return r.Step.Name
}

func (a *Apply) step(ctx context.Context, s *plan.Step, ring *keyring) []Result {
	if s.Active {
		devices, err := Mapped(a.Kernel, s)
		var shares []dm.Device
		if err == nil {
			shares, err = MappedShares(a.Kernel, s, devices[0])
		}
		if err == nil && s.Copies > 0 {
			s.Lacks, err = lacking(a.Kernel, s)
		}
		if err != nil {
			return Ends(Result{Step: s, Err: fmt.Errorf("volume %q: %w", s.Name, err)}, nil)
		}
		if a.Enlarge {
			return Ends(a.enlarge(ctx, s, devices[0], ring), shares)
		}
		return Ends(Result{Step: s, Device: devices[0]}, shares)
	}
	var d dm.Device
	var shares []dm.Device
	key, err := ring.get(ctx, s)
	locked := err != nil
	if err == nil {
		d, shares, err = a.unlock(ctx, s, key)
		locked = errors.Is(err, luks.ErrPassphrase)
	}
	if locked && s.Volume.OnFailure == config.FailPrompt && !s.Format {
		d, shares, err = a.prompt(ctx, s, err)
	}
	if err != nil {
		err = fmt.Errorf("volume %q: %w", s.Name, err)
	}
	return Ends(Result{Step: s, Device: d, KMSKey: key.kmsKey, Requests: key.requests, Err: err}, shares)
}

// prompt opens with a passphrase that the operator types. The deadline of the boot
// does not hold for people.
func (a *Apply) prompt(ctx context.Context, s *plan.Step, why error) (d dm.Device, shares []dm.Device, err error) {
	ctx = context.WithoutCancel(ctx)
	for range tries {
		passphrase, err := a.Ask(s.Name, why)
		if err != nil {
			return d, nil, errors.Join(why, fmt.Errorf("asking for a passphrase: %w", err))
		}
		deriver := luks.NewDeriver(passphrase)
		d, shares, err = a.unlock(ctx, s, &key{passphrase: passphrase, deriver: deriver})
		deriver.Wipe()
		passphrase.Wipe()
		if !errors.Is(err, luks.ErrPassphrase) {
			return d, shares, err
		}
		why = errTyped
	}
	return d, nil, why
}

var errTyped = hint.New("the passphrase that was typed does not open it",
	"type a recovery passphrase that was added to the volume, for instance by unlockctl enroll --recovery-key")

// unlock formats if need be, opens, maps, makes the file systems and marks the set as
// ready.
func (a *Apply) unlock(ctx context.Context, s *plan.Step, key *key) (_ dm.Device, _ []dm.Device, err error) {
	members, release, err := a.hold(s)
	if err != nil {
		return dm.Device{}, nil, err
	}
	defer release()
	if s.Format {
		if err := a.format(s, key, members); err != nil {
			return dm.Device{}, nil, err
		}
	}
	var mapped []string
	defer func() {
		for i := len(mapped) - 1; err != nil && i >= 0; i-- {
			err = errors.Join(err, a.Kernel.Remove(mapped[i]))
		}
	}()
	devices, sectors, err := a.open(ctx, s, key, members)
	for _, d := range devices {
		if d.Name != "" {
			mapped = append(mapped, d.Name)
		}
	}
	if err != nil {
		return dm.Device{}, nil, err
	}
	top, stripe := devices[0], fsopt.Stripe{}
	switch {
	case s.Copies > 0:
		if s.Chunk > 0 {
			stripe = fsopt.Stripe{Chunk: int64(s.Chunk), Disks: s.Count / s.Copies, Size: s.Size * int64(s.Count/s.Copies)}
		}
		var made []string
		top, made, err = a.mirror(ctx, s, key, members, devices, sectors)
		mapped = append(mapped, made...)
		if err != nil {
			return dm.Device{}, nil, err
		}
		sectors = uint64(s.Size*int64(s.Count/s.Copies)) >> dm.SectorShift
	case s.Joined():
		stripe = fsopt.Stripe{Chunk: plan.Chunk, Disks: len(members), Size: int64(sectors) << dm.SectorShift * int64(len(members))}
		if top, err = a.stripe(s, devices, sectors); err != nil {
			return dm.Device{}, nil, err
		}
		mapped = append(mapped, top.Name)
		sectors = stripeSectors(sectors, len(members))
	}
	var shares []dm.Device
	for i := range s.Shares {
		d, err := a.share(s, &s.Shares[i], top, sectors)
		if err != nil {
			return dm.Device{}, nil, err
		}
		shares, mapped = append(shares, d), append(mapped, d.Name)
	}
	if s.Mkfs {
		if err := a.makeAll(ctx, s, top, shares, stripe); err != nil {
			return dm.Device{}, nil, err
		}
	}
	if s.Mark {
		if err := a.mark(s, members, luks.StateReady, key); err != nil {
			return dm.Device{}, nil, err
		}
	}
	return top, shares, nil
}

// share maps a share of a device with so many sectors.
func (a *Apply) share(s *plan.Step, share *plan.Share, top dm.Device, sectors uint64) (dm.Device, error) {
	t := linear(share, top)
	if t.Offset+t.Sectors > sectors {
		return dm.Device{}, fmt.Errorf("share %s ends behind the volume", share.Name)
	}
	return a.Kernel.Create(share.Name, plan.ShareUUID(s.Set, share.Name), t, dm.Options{ReadOnly: s.Members[0].Disk.ReadOnly})
}

// linear is the target that maps a share.
func linear(share *plan.Share, top dm.Device) dm.Linear {
	return dm.Linear{Device: top.Number(), Offset: uint64(share.Offset) >> dm.SectorShift, Sectors: uint64(share.Size) >> dm.SectorShift}
}

// makeAll makes the file systems of a step, that of its own device or those of its shares.
func (a *Apply) makeAll(ctx context.Context, s *plan.Step, top dm.Device, shares []dm.Device, stripe fsopt.Stripe) error {
	if s.Volume.Filesystem != "" {
		return a.Rec.Step("mkfs", s.Name, func() error { return a.makeFS(ctx, s.Volume, top, stripe) })
	}
	return parallel(len(shares), func(i int) error {
		share := &s.Shares[i]
		if share.Volume.Filesystem == "" {
			return nil
		}
		stripe := stripe
		stripe.Size = share.Size
		return a.Rec.Step("mkfs", share.Name, func() error { return a.makeFS(ctx, share.Volume, shares[i], stripe) })
	})
}

func (a *Apply) makeFS(ctx context.Context, v *config.Volume, d dm.Device, stripe fsopt.Stripe) error {
	return a.Kernel.MakeFS(ctx, d, v.Filesystem, fsopt.Arguments(v.Filesystem, v.MakeOptions, stripe)...)
}

// format writes the headers of all members; only when all are durable is any of
// them marked as formed.
func (a *Apply) format(s *plan.Step, key *key, members []*held) error {
	first := luks.StateForming
	if !s.Joined() {
		first = luks.StateFormed
	}
	err := parallel(len(members), func(i int) error {
		m := members[i]
		return a.Rec.Step("format", m.Disk.Name, func() (err error) {
			m.header, err = a.formatMember(s, m.Member, key, first)
			return err
		})
	})
	if err != nil || !s.Joined() {
		return err
	}
	return a.mark(s, members, luks.StateFormed, key)
}

func (a *Apply) formatMember(s *plan.Step, m *plan.Member, key *key, state luks.State) (*luks.Header, error) {
	// Not through the descriptor that is held: while one is exclusive, nothing can map
	// the disk.
	f, err := a.openMember(m, true, true)
	if err != nil {
		return nil, fmt.Errorf("formatting: %w", err)
	}
	defer f.Close()
	if m.LUKS != nil && (m.LUKS.Set == nil || !m.LUKS.Set.Ephemeral && m.LUKS.Set.State != luks.StateForming) {
		return nil, fmt.Errorf("formatting %s: it holds a volume", m.Disk.Path)
	}
	if err := a.unchanged(f, m); err != nil {
		return nil, fmt.Errorf("formatting: %w", err)
	}
	o := luks.FormatOptions{
		UUID: m.UUID, Label: s.Volume.Name, SectorSize: sectorSize(m.Disk),
		Flags: []string{"no-read-workqueue", "no-write-workqueue"}, // flash gains from crypto in the submitter's context
		Set:   new(token(s, m, state, key)),
		Over:  m.Over(),
		Slow:  s.Volume.Key.Source.Kind != source.Header && keys.Guessable(key.passphrase),
	}
	if s.Volume.Discard {
		o.Flags = append(o.Flags, "allow-discards")
	}
	if key.blob != nil {
		o.KMS = kmsToken(key.blob)
	}
	h, err := luks.FormatWith(f, m.Disk.Size, key.deriver, o)
	if err != nil {
		return nil, fmt.Errorf("formatting %s: %w", m.Disk.Path, err)
	}
	return h, nil
}

// sectorSize is 4096 bytes, eight times fewer initialisation vectors than with
// 512, where the disk's size allows.
func sectorSize(d block.Disk) int {
	if d.Size%4096 == 0 {
		return 4096
	}
	return 512
}

// token is the unlock-set token of a member.
func token(s *plan.Step, m *plan.Member, state luks.State, key *key) luks.SetToken {
	t := luks.SetToken{Version: 1, UUID: s.Set, Index: m.Index, Count: s.Count, State: state,
		Ephemeral: s.Volume.Format == config.FormatEphemeral, PCR4: key.pcr4}
	if !s.Format {
		t.PCR4 = formattedBy(m)
	}
	t.Chunk = s.Chunk
	var shares luks.Shares
	for _, share := range s.Shares {
		shares = append(shares, share.Share)
	}
	if t.Shares = shares.String(); t.Shares != "" {
		t.Version = luks.VersionShares
	}
	if s.Copies > 0 {
		t.Version, t.Copies, t.Size = luks.VersionMirror, s.Copies, s.Size
		t.Epoch, t.Before, t.Left = s.Mirror.Epoch, s.Mirror.Before, s.Mirror.Left
	}
	return t
}

// formattedBy is PCR 4 of the boot that formatted a member, "" if its token does not say.
func formattedBy(m *plan.Member) string {
	if m.LUKS == nil || m.LUKS.Set == nil {
		return ""
	}
	return m.LUKS.Set.PCR4
}

// mark writes a state into the tokens of all members.
func (a *Apply) mark(s *plan.Step, members []*held, state luks.State, key *key) error {
	return parallel(len(members), func(i int) error {
		m := members[i]
		err := a.Rec.Step("mark", m.Disk.Name, func() error { return m.header.PutSet(m.dev, token(s, m.Member, state, key)) })
		if err != nil {
			return fmt.Errorf("marking %s as %s: %w", m.Disk.Path, state, err)
		}
		return nil
	})
}

// open unlocks and maps all members; sectors is the size of the smallest. On
// failure devices holds those that were mapped.
func (a *Apply) open(ctx context.Context, s *plan.Step, key *key, members []*held) (devices []dm.Device, sectors uint64, err error) {
	devices = make([]dm.Device, len(members))
	sizes := make([]uint64, len(members))
	err = parallel(len(members), func(i int) error {
		m := members[i]
		return a.Rec.Step("open", m.Disk.Name, func() error {
			p, err := m.header.OpenWith(ctx, key.deriver)
			if err != nil {
				return fmt.Errorf("opening %s: %w", m.Disk.Path, err)
			}
			defer p.Wipe()
			a.repair(m)
			sizes[i] = uint64(p.Size) >> dm.SectorShift
			devices[i], err = a.mapPayload(s, m.Member, p)
			return err
		})
	})
	sectors = sizes[0]
	for _, n := range sizes {
		sectors = min(sectors, n)
	}
	return devices, sectors, err
}

// repair mends a damaged copy of a header whose key has just verified. The volume
// is usable either way.
func (a *Apply) repair(m *held) {
	for _, n := range m.header.Notes() {
		a.Log("%s: %s", m.Disk.Path, n)
	}
	if err := m.header.Repair(m.dev); err != nil {
		a.Log("%s: repairing the header: %v", m.Disk.Path, err)
	}
}

func (a *Apply) mapPayload(s *plan.Step, m *plan.Member, p *luks.Payload) (dm.Device, error) {
	d, err := a.Kernel.Create(m.Mapping, plan.CryptUUID(p.Type, p.UUID, m.Mapping), crypt(m, p),
		dm.Options{ReadOnly: m.Disk.ReadOnly, Internal: s.Joined()})
	for _, f := range d.Left {
		a.Log("%s: this kernel does not know flag %s, which is left out", m.Disk.Path, f)
	}
	return d, err
}

// stripe joins members of at least the given size.
func (a *Apply) stripe(s *plan.Step, members []dm.Device, sectors uint64) (dm.Device, error) {
	const chunk = plan.Chunk >> dm.SectorShift
	t := dm.Striped{Chunk: chunk, Sectors: stripeSectors(sectors, len(members))}
	for _, d := range members {
		t.Devices = append(t.Devices, d.Number())
	}
	return a.Kernel.Create(s.Name, plan.StripeUUID(s.Set), t, dm.Options{})
}

// stripeSectors is how many sectors a stripe has of so many members of that size.
func stripeSectors(sectors uint64, members int) uint64 {
	const chunk = plan.Chunk >> dm.SectorShift
	return sectors / chunk * chunk * uint64(members)
}

// parallel calls f for 0..n-1 side by side and waits for all.
func parallel(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { errs[i] = f(i) })
	}
	wait.Wait()
	return errors.Join(errs...)
}
