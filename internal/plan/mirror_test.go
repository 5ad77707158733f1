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

// leg is a disk of a mirror: its token, what the kernel wrote there, and what was ever
// written to it.
type leg struct {
	token  luks.SetToken
	record plan.Record
	data   []int
}

// mirrors is a mirror's disks over many boots.
type mirrors struct {
	legs   []*leg
	writes int
	epochs int
	rng    *rand.Rand
	drops  bool     // the kernel may give up disks that are mapped
	story  []string // what happened, for whoever reads of a failure
}

// note tells what happened, and how things are now.
func (m *mirrors) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	for _, l := range m.legs {
		line += fmt.Sprintf("; %d has %v, epoch %s after %q, left %q, failed %b at %d", l.token.Index, l.data, l.token.Epoch, l.token.Before, l.token.Left, l.record.Failed, l.record.Events)
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

// record has the kernel write its superblocks on those that are left, one after the other.
// It returns false if power fails before it has written all.
func (m *mirrors) record(cuts bool, legs ...*leg) bool {
	n := len(legs)
	if cuts && m.rng.IntN(3) == 0 {
		n = m.rng.IntN(n + 1)
	}
	r := plan.Record{Failed: 1<<len(m.legs) - 1, Whole: true}
	for _, l := range legs {
		r.Failed &^= 1 << l.token.Index
		r.Events = max(r.Events, l.record.Events+1)
	}
	for _, l := range legs[:n] {
		l.record = r
	}
	return n == len(legs)
}

// run writes to those that are mapped, some of which the kernel may give up meanwhile. It
// returns those that it has not.
func (m *mirrors) run(cuts bool, legs ...*leg) []*leg {
	if !m.record(cuts, legs...) {
		return nil
	}
	m.write(legs...)
	for len(legs) > 1 && m.drops && m.rng.IntN(4) == 0 {
		i := m.rng.IntN(len(legs))
		legs = slices.Delete(slices.Clone(legs), i, i+1)
		if !m.record(cuts, legs...) {
			return nil
		}
		m.write(legs...)
	}
	return legs
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
// neither if it is refused; up is false if power failed or the kernel gave one of them up.
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
	records := map[int]plan.Record{}
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
		records[l.token.Index] = l.record
	}
	dropped, ok := plan.Dropped(records)
	if !ok {
		return nil, nil, false
	}
	if len(dropped) == len(inStep) {
		return nil, nil, false
	}
	next := plan.Parted(knows.token, present, m.epoch)
	tell := next.Epoch != knows.token.Epoch || untold
	known := behind
	if len(dropped) > 0 {
		var left []*leg
		var in, out []*luks.SetToken
		for _, l := range inStep {
			if dropped[l.token.Index] {
				delete(present, l.token.Index)
				behind, out = append(behind, l), append(out, &l.token)
				continue
			}
			left, in = append(left, l), append(in, &l.token)
		}
		if next, ok = plan.Leaving(in, out, m.epoch); !ok {
			return nil, nil, false
		}
		inStep, tell = left, true
	}
	for _, l := range known {
		if l.record.Apart(&l.token, &next) {
			return nil, nil, false
		}
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
	if tell && !m.tell(cuts, next, inStep...) {
		return inStep, behind, false
	}
	return inStep, behind, len(m.run(cuts, inStep...)) == len(inStep)
}

// join has a disk that is behind, or new, take part again. Whoever is written to meanwhile
// is in step at its end, whether power fails or not.
func (m *mirrors) join(cuts bool, l *leg, inStep []*leg) {
	l.token.State = luks.StateForming // before anything else is written to it
	l.data = nil
	all := append([]*leg{l}, inStep...)
	l.record.Events = inStep[0].record.Events // it was cleared
	written := m.record(cuts, all...)
	l.record.Whole = false
	if !written || cuts && m.rng.IntN(4) == 0 {
		m.write(inStep...)
		return
	}
	l.data = slices.Clone(inStep[0].data)
	if !m.record(cuts, all...) {
		return
	}
	t := inStep[0].token
	left, _ := luks.ParseLeft(t.Left)
	delete(left, l.token.Index)
	t.Before, t.Epoch, t.Left = t.Epoch, m.epoch(), left.String()
	m.write(all...)
	if m.tell(cuts, t, all...) {
		m.write(all...)
	}
}

func newMirror(n int, rng *rand.Rand) *mirrors {
	m := &mirrors{rng: rng}
	for i := range n {
		m.legs = append(m.legs, &leg{token: luks.SetToken{Version: luks.VersionMirror, UUID: "S", Index: i, Count: n, Copies: n, Size: 1, State: luks.StateReady, Epoch: "e0"}, record: plan.Record{Events: 1, Whole: true}})
	}
	return m
}

// TestMirrorHistories: whatever disks of a mirror are there at each of many boots, whichever
// are added again, wherever power fails and whichever the kernel gives up, those that are opened hold the same data, and
// what is on those that are called behind is on the others, too. Where no power fails and
// nothing was opened without disks that had what it lacked, nothing is refused.
func TestMirrorHistories(t *testing.T) {
	t.Parallel()
	opened, refused := 0, 0
	for seed := range uint64(4000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cuts := seed%2 == 0
		m := newMirror(2+rng.IntN(3), rng)
		m.drops = seed%4 > 1
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
