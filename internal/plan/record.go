package plan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"unlock/internal/hint"
	"unlock/internal/luks"
)

// Tokens say who was there when a mirror was mapped. Whom the kernel gives up while it is
// mapped, no token says: its disk may be the last that could be written to. dm-raid writes
// it into its superblock on the members that are left, before it reports any write as done
// that the other lacks. So a member that another's superblock calls failed is behind, until
// it has joined again.
//
// A member that was given up does not know of it. If it is there alone it is taken for what
// it says, as there is no telling whether the others went on. When one of them is there
// again its superblock says so, and nothing is opened or overwritten.

// RecordSize is how much of a member's payload ParseRecord wants, in bytes.
const RecordSize = 512

// recordMagic is DM_RAID_MAGIC.
const recordMagic = 0x64526D44

// Record is what dm-raid knew of a mirror when it last wrote its superblock on a member
// (the kernel's drivers/md/dm-raid.c, struct dm_raid_superblock).
type Record struct {
	Events uint64 // grows with what happens to the mirror
	Failed uint64 // a bit for each member that was missing or had failed
	Whole  bool   // the member itself had all data
}

// ParseRecord reads the superblock of one of count members, little-endian: magic 4 bytes,
// features 4, members 4, place of this one 4, events 8, failed members 8, how far this one
// has been given its data 8, all ones if it has all.
func ParseRecord(b []byte, index, count int) (Record, error) {
	le := binary.LittleEndian
	switch {
	case len(b) < RecordSize || le.Uint32(b) != recordMagic:
		return Record{}, errors.New("the kernel's superblock of the mirror is not there")
	case int(le.Uint32(b[8:])) != count || int(le.Uint32(b[12:])) != index:
		return Record{}, fmt.Errorf("the kernel's superblock is that of disk %d of %d, the header that of disk %d of %d",
			int64(le.Uint32(b[12:]))+1, le.Uint32(b[8:]), index+1, count)
	}
	return Record{Events: le.Uint64(b[16:]), Failed: le.Uint64(b[24:]), Whole: le.Uint64(b[32:]) == math.MaxUint64}, nil
}

// lacks reports whether the mirror lacked a member.
func (r Record) lacks(index int) bool { return r.Failed>>index&1 == 1 }

// Dropped returns which of the members that are in step by their tokens are not, by their
// records. It is false if two went on without each other.
func Dropped(inStep map[int]Record) (map[int]bool, bool) {
	dropped := map[int]bool{}
	for i, r := range inStep {
		if !r.Whole {
			dropped[i] = true
		}
		for j, o := range inStep {
			switch {
			case !r.lacks(j):
			case r.Whole && o.Whole && (o.lacks(i) || o.Events > r.Events):
				return nil, false
			case o.Events <= r.Events:
				dropped[j] = true
			}
		}
	}
	return dropped, true
}

// Apart reports whether a member that is behind by its token, which is t, saw all those
// dropped that went on without it, by the token of those in step: both have data that the
// other lacks. Of those that were missing when it was mapped its own token knew, and the
// tokens have been judged.
func (r Record) Apart(t, inStep *luks.SetToken) bool {
	missing, _ := luks.ParseLeft(t.Left) // both were checked when they were read
	left, _ := luks.ParseLeft(inStep.Left)
	dropped := r.Failed
	for i := range missing {
		dropped &^= 1 << i
	}
	return left[t.Index].With&^dropped == 0
}

// Leaving returns what the tokens of the members in step are to be when they go on without
// those that are out. It is false if the tokens of those in step do not say one thing.
func Leaving(inStep, out []*luks.SetToken, epoch func() string) (luks.SetToken, bool) {
	standing, ok := Judge(inStep)
	if !ok {
		return luks.SetToken{}, false
	}
	present := map[int]bool{}
	var base luks.SetToken
	for i, t := range inStep {
		if present[t.Index] = true; standing[i] == Current {
			base = *t
		}
	}
	base = Parted(base, present, epoch)
	left, _ := luks.ParseLeft(base.Left) // which was checked when it was read
	for _, t := range out {
		left[t.Index] = luks.Parting{Epoch: t.Epoch, With: bits(present)}
	}
	base.Left = left.String()
	return base, true
}

// ErrApart: members of a mirror went on without each other.
var ErrApart = hint.New("the members of the mirror have gone on without each other, and each may hold data that the others lack",
	"detach those whose data are not wanted, and boot; to have them join again, give up what is on them: blkdiscard --zeroout, then unlockctl join")

// Leave leaves members out of a mirror that are not in step after all.
func (s *Step) Leave(dropped map[int]bool, epoch func() string) error {
	if len(dropped) == 0 {
		return nil
	}
	var members []Member
	var inStep, out []*luks.SetToken
	for _, m := range s.Members {
		if dropped[m.Index] {
			s.Out, out = append(s.Out, m.Candidate), append(out, m.set())
			continue
		}
		members, inStep = append(members, m), append(inStep, m.set())
	}
	s.Members = members
	if err := s.lost(); err != nil {
		return err
	}
	t, ok := Leaving(inStep, out, epoch)
	if !ok {
		return ErrApart
	}
	s.Mirror, s.Tell = t, true
	return nil
}

// lost returns an error if none of those members is in step that alone have a part of a
// mirror's data.
func (s *Step) lost() error {
	for i := 0; i < s.Count; i += s.Copies {
		if !slices.ContainsFunc(s.Members, func(m Member) bool { return m.Index/s.Copies == i/s.Copies }) {
			return hint.With(fmt.Errorf("disks %d to %d of the mirror are missing, which alone have a part of the data", i+1, i+s.Copies), "attach one of them")
		}
	}
	return nil
}

// Behind reports whether a disk is a member of the step's mirror that may hold data, though
// it is not in step.
func (s *Step) Behind(c *Candidate) bool {
	return c.LUKS != nil && c.LUKS.Set != nil && c.LUKS.Set.UUID == s.Set && c.LUKS.Set.State == luks.StateReady && c.LUKS.Set.Index < s.Count
}
