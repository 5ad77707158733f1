package plan

import (
	"fmt"
	"slices"
	"strings"

	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/luks"
)

// A mirror goes on when a member is missing, so that members may hold data of different
// times, and a member that was away may come back, or go on by itself with others that
// were away. What its members know of each other lies in their tokens:
//
// Epoch is a random name that all members of a mirror get whenever one of them leaves or
// joins, before the mirror is mapped without it, or when it is in step with them. Left
// says which members they have gone on without, at which epoch, and who went on, Before
// which epoch theirs followed. So a member that is behind has the epoch at which it was
// left. One that has any other has been part of a mirror since that the others were not
// part of: both have data that the other lacks, and nobody can tell which are wanted.
//
// Tokens are written one after the other, and power may fail in between. A member whose
// epoch is the one before, and that was not left, has only not been told yet. As nothing is
// mapped before all are told of who left, it lacks nothing. Who joins is told first: until
// then it counts as behind, after that it lacks nothing either, and the others, who have not
// been told, count as told last.

// Standing is what Judge makes of a member.
type Standing int

const (
	Behind  Standing = iota // others went on without it: what is on it is on them, too, or was overwritten there
	Untold                  // it lacks nothing, but its token is to be written again
	Current                 // it lacks nothing
)

// Judge tells how members of one mirror stand, by their tokens. It is false if none of
// them knows of all the others: then some have gone on without each other.
func Judge(tokens []*luks.SetToken) ([]Standing, bool) {
	for _, t := range tokens {
		if standing, ok := judgeBy(t, tokens); ok {
			return standing, true
		}
	}
	return nil, false
}

// judgeBy is Judge by what one of them knows.
func judgeBy(t *luks.SetToken, tokens []*luks.SetToken) ([]Standing, bool) {
	left, _ := luks.ParseLeft(t.Left) // which was checked when it was read
	list := make([]Standing, len(tokens))
	for i, o := range tokens {
		at, was := left[o.Index]
		switch {
		case o.Epoch == t.Epoch && o.Left == t.Left && o.Before == t.Before:
			list[i] = Current
		case was && o.Epoch == at.Epoch:
			list[i] = Behind
		case !was && t.Before != "" && o.Epoch == t.Before:
			list[i] = Untold
		default:
			return nil, false
		}
	}
	return list, true
}

// Parted returns what the members that are in step, of which t is the token of one, are to
// have in their tokens before they are mapped. It is t itself if none is missing. Otherwise
// it has a new epoch, also where the same were missing before: one may have joined since, and
// only it been told.
func Parted(t luks.SetToken, inStep map[int]bool, epoch func() string) luks.SetToken {
	before, _ := luks.ParseLeft(t.Left)
	left := luks.Left{}
	for i := range t.Count {
		at, was := before[i]
		switch {
		case inStep[i]:
		case was:
			left[i] = at
		default:
			left[i] = luks.Parting{Epoch: t.Epoch, With: bits(inStep)}
		}
	}
	if len(left) == 0 {
		return t
	}
	t.Before, t.Epoch, t.Left = t.Epoch, epoch(), left.String()
	return t
}

// bits has one for each member.
func bits(members map[int]bool) (n uint64) {
	for i := range members {
		n |= 1 << i
	}
	return n
}

// MetaSize is how many bytes of a mirror's member are dm-raid's, for a superblock and a
// bitmap of what is being written; its data follow.
const MetaSize = 4 << 20

// copies is how many a layout has of all data on so many disks; the reason says why they
// do not do.
func copies(l config.Layout, disks int) (n, chunk int, reason string) {
	switch {
	case l == config.LayoutMirror && disks < 2:
		return 0, 0, "a mirror has at least 2 disks, and 1 is here"
	case l == config.LayoutMirror:
		return disks, 0, ""
	case l == config.LayoutStripeMirror && (disks < 4 || disks%2 != 0):
		return 0, 0, fmt.Sprintf("a stripe over mirrors has 4 disks or more, in pairs, and %d are here", disks)
	case l == config.LayoutStripeMirror:
		return 2, Chunk, ""
	}
	return 0, 0, ""
}

// mirrored returns the token of the first of the disks that is a member of a mirror which
// may hold data.
func mirrored(members []*Candidate) *luks.SetToken {
	for _, m := range members {
		if m.LUKS != nil && m.LUKS.Set != nil && m.LUKS.Set.Copies > 0 && m.LUKS.Set.State == luks.StateReady {
			return m.LUKS.Set
		}
	}
	return nil
}

// Regard takes over what a step is from the disks of a mirror that may hold data, and
// returns the token of one; nil: there is none.
func (s *Step) Regard(members []*Candidate) *luks.SetToken {
	t := mirrored(members)
	if t != nil {
		s.take(t)
	}
	return t
}

// take takes over what a step is from the token of a member.
func (s *Step) take(t *luks.SetToken) {
	s.Set, s.Count, s.Copies, s.Chunk, s.Size, s.Mirror = t.UUID, t.Count, t.Copies, t.Chunk, t.Size, *t
}

// regroup decides on disks some of which are members of a mirror that may hold data. The
// others are left alone, whatever is on them.
func regroup(s Situation, step Step, first *luks.SetToken) (Step, *Refusal) {
	refuse := func(advice, format string, args ...any) (Step, *Refusal) {
		return Step{}, &Refusal{step.Volume, step.paths(), fmt.Sprintf(format, args...), advice}
	}
	var tokens []*luks.SetToken
	var members []Member
	for _, m := range step.Members {
		t := m.set()
		switch {
		case m.Disk.InUse && t != nil && t.UUID == first.UUID:
			return refuse("lsblk shows by what", "in use: mounted, partitioned or mapped by something else")
		case t == nil || t.State == luks.StateForming && !unmarked(t, step.Members):
			step.Out = append(step.Out, m.Candidate)
			continue
		case t.UUID != first.UUID:
			return refuse("select the disks of one set, for example by serial=", "the disks belong to different sets (%s and %s)", first.UUID, t.UUID)
		case t.Count != first.Count || t.Copies != first.Copies || t.Chunk != first.Chunk || t.Size != first.Size || t.Shares != first.Shares || t.Ephemeral:
			return refuse("", "%s does not say of the mirror what the others say", m.Disk.Path)
		}
		for i, other := range members {
			if tokens[i].Index == t.Index {
				return refuse("detach the one that was replaced", "%s and %s both say they are disk %d of set %s", other.Disk.Path, m.Disk.Path, t.Index, t.UUID)
			}
		}
		m.Index, m.Mapping = t.Index, fmt.Sprintf("%s_%d", step.Name, t.Index)
		members, tokens = append(members, m), append(tokens, t)
	}
	if _, chunk, _ := copies(step.Volume.Layout, first.Count); !s.Shares && (step.Volume.Layout != config.LayoutMirror && step.Volume.Layout != config.LayoutStripeMirror || chunk != first.Chunk) {
		return refuse("use the layout with which the disks were formatted", "the disks were not formatted with this layout")
	}
	standing, ok := Judge(tokens)
	if !ok {
		return refuse(hint.Of(ErrApart), "%v", ErrApart)
	}
	ordered := make([]*Member, first.Count)
	inStep, untold := map[int]bool{}, false
	for i, m := range members {
		if standing[i] == Behind {
			step.Out = append(step.Out, m.Candidate)
			continue
		}
		if standing[i] == Current {
			first = tokens[i]
		}
		untold = untold || standing[i] == Untold
		inStep[m.Index] = true
		ordered[m.Index] = &members[i]
	}
	step.Members = nil
	for _, m := range ordered {
		if m != nil {
			step.Members = append(step.Members, *m)
		}
	}
	step.take(first)
	if err := step.lost(); err != nil {
		return refuse(hint.Of(err), "%v", err)
	}
	step.Mirror = Parted(*first, inStep, func() string { return epoch(s) })
	step.Tell = untold || step.Mirror.Epoch != first.Epoch
	step.Mark = slices.ContainsFunc(step.Members, func(m Member) bool { return m.set().State != luks.StateReady })
	return openWithKey(step)
}

// unmarked reports whether a member has been in step from the beginning, and only its token
// was not written, or not whole, when the mirror became ready for the first time. One that
// was joining when power failed had been left by all that have its epoch.
func unmarked(t *luks.SetToken, members []Member) bool {
	return slices.ContainsFunc(members, func(m Member) bool {
		o := m.set()
		if o == nil || o.State != luks.StateReady || o.UUID != t.UUID || o.Epoch != t.Epoch {
			return false
		}
		left, _ := luks.ParseLeft(o.Left) // which was checked when it was read
		return left[t.Index].Epoch == ""
	})
}

// epoch returns a new one.
func epoch(s Situation) string {
	name, _, _ := strings.Cut(s.NewUUID(), "-")
	return name
}
