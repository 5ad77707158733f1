package plan

import (
	"unlock/internal/luks"
)

// A mirror goes on when a member is missing, so that members may hold data of different
// times, and a member that was away may come back, or go on by itself with others that
// were away. What its members know of each other lies in their tokens:
//
// Epoch is a random name that all members of a mirror get whenever one of them leaves or
// joins, before the mirror is mapped without it, or when it is in step with them. Left
// says which members they have gone on without, and at which epoch those were, Before
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
		case was && o.Epoch == at:
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
			left[i] = t.Epoch
		}
	}
	if len(left) == 0 {
		return t
	}
	t.Before, t.Epoch, t.Left = t.Epoch, epoch(), left.String()
	return t
}
