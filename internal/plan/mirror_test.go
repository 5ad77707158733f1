package plan_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"unlock/internal/luks"
	"unlock/internal/plan"
)

// leg is a disk of a mirror: its token, and what was ever written to it.
type leg struct {
	token luks.SetToken
	data  []int
}

// mirrors is a mirror's disks over many boots.
type mirrors struct {
	legs   []*leg
	writes int
	epochs int
	rng    *rand.Rand
	story  []string // what happened, for whoever reads of a failure
}

// note tells what happened, and how things are now.
func (m *mirrors) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for _, l := range m.legs {
		line += fmt.Sprintf("; %d has %v, epoch %s after %q, left %q", l.token.Index, l.data, l.token.Epoch, l.token.Before, l.token.Left)
	}
	m.story = append(m.story, line)
}

func (m *mirrors) epoch() string { m.epochs++; return fmt.Sprint("e", m.epochs) }

// write writes to all these.
func (m *mirrors) write(legs ...*leg) {
	m.writes++
	for _, l := range legs {
		l.data = append(l.data, m.writes)
	}
}

// tell writes tokens, one after the other, and returns false if power fails before it has
// written all.
func (m *mirrors) tell(cuts bool, t luks.SetToken, legs ...*leg) bool {
	n := len(legs)
	if cuts && m.rng.IntN(3) == 0 {
		n = m.rng.IntN(n + 1)
	}
	for _, l := range legs[:n] {
		t.Index = l.token.Index
		l.token = t
	}
	return n == len(legs)
}

func indexes(legs []*leg) (list []int) {
	for _, l := range legs {
		list = append(list, l.token.Index)
	}
	return list
}

func prefix(a, b []int) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }

// boot opens the mirror with these disks and returns those in step and those behind, or
// neither if it is refused; up is false if power failed before it was mapped.
func (m *mirrors) boot(t *testing.T, cuts bool, here ...*leg) (inStep, behind []*leg, up bool) {
	t.Helper()
	var tokens []*luks.SetToken
	for _, l := range here {
		tokens = append(tokens, &l.token)
	}
	standing, ok := plan.Judge(tokens)
	if !ok {
		return nil, nil, false
	}
	present := map[int]bool{}
	var knows *leg
	untold := false
	for i, l := range here {
		switch standing[i] {
		case plan.Behind:
			behind = append(behind, l)
			continue
		case plan.Untold:
			untold = true
		case plan.Current:
			knows = l
		}
		inStep = append(inStep, l)
		present[l.token.Index] = true
	}
	for _, l := range inStep {
		if !slices.Equal(l.data, inStep[0].data) {
			t.Fatalf("members in step hold %v and %v:\n%s", inStep[0].data, l.data, strings.Join(m.story, "\n"))
		}
	}
	for _, l := range behind {
		if !prefix(l.data, inStep[0].data) {
			t.Fatalf("a member that is behind holds %v, the others %v:\n%s", l.data, inStep[0].data, strings.Join(m.story, "\n"))
		}
	}
	next := plan.Parted(knows.token, present, m.epoch)
	if (next.Epoch != knows.token.Epoch || untold) && !m.tell(cuts, next, inStep...) {
		return inStep, behind, false
	}
	m.write(inStep...)
	return inStep, behind, true
}

// join has a disk that is behind, or new, take part again. Whoever is written to meanwhile
// is in step at its end, whether power fails or not.
func (m *mirrors) join(cuts bool, l *leg, inStep []*leg) {
	l.token.State = luks.StateForming // before anything else is written to it
	l.data = nil
	if cuts && m.rng.IntN(4) == 0 {
		m.write(inStep...)
		return
	}
	l.data = slices.Clone(inStep[0].data)
	t := inStep[0].token
	left, _ := luks.ParseLeft(t.Left)
	delete(left, l.token.Index)
	t.Before, t.Epoch, t.Left = t.Epoch, m.epoch(), left.String()
	all := append([]*leg{l}, inStep...)
	m.write(all...)
	if m.tell(cuts, t, all...) {
		m.write(all...)
	}
}

func newMirror(n int, rng *rand.Rand) *mirrors {
	m := &mirrors{rng: rng}
	for i := range n {
		m.legs = append(m.legs, &leg{token: luks.SetToken{Version: luks.VersionMirror, UUID: "S", Index: i, Count: n, Copies: n, Size: 1, State: luks.StateReady, Epoch: "e0"}})
	}
	return m
}

// TestMirrorHistories: whatever disks of a mirror are there at each of many boots, whichever
// are added again, and wherever power fails, those that are opened hold the same data, and
// what is on those that are called behind is on the others, too. Where no power fails and
// nothing was opened without disks that had what it lacked, nothing is refused.
func TestMirrorHistories(t *testing.T) {
	t.Parallel()
	opened, refused := 0, 0
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cuts := seed%2 == 0
		m := newMirror(2+rng.IntN(3), rng)
		for range 12 {
			var here []*leg
			for _, l := range m.legs {
				if l.token.State == luks.StateReady && rng.IntN(3) > 0 {
					here = append(here, l)
				}
			}
			if len(here) == 0 {
				continue
			}
			apart := false // some have data that others lack, and the reverse
			for _, a := range here {
				for _, b := range here {
					apart = apart || !prefix(a.data, b.data) && !prefix(b.data, a.data)
				}
			}
			inStep, behind, up := m.boot(t, cuts, here...)
			m.note("boot with %d, %d in step, up %v", indexes(here), len(inStep), up)
			if inStep == nil {
				if refused++; !cuts && !apart {
					t.Fatalf("seed %d: refused, though nothing is missing anywhere:\n%s", seed, strings.Join(m.story, "\n"))
				}
				continue
			}
			opened++
			if apart {
				t.Fatalf("seed %d: opened, though members have gone on without each other:\n%s", seed, strings.Join(m.story, "\n"))
			}
			for _, l := range m.legs {
				if l.token.State != luks.StateReady {
					behind = append(behind, l)
				}
			}
			if up && len(behind) > 0 && rng.IntN(2) == 0 {
				m.join(cuts, behind[0], inStep)
				m.note("%d joined", behind[0].token.Index)
			}
		}
	}
	t.Logf("opened %d times, refused %d times", opened, refused)
	if opened < 10000 || refused < 1000 {
		t.Errorf("opened %d times and refused %d times, which is too few to mean anything", opened, refused)
	}
}
