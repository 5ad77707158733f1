package unlock_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// The phases of a boot that writes. All disks of a volume are through with one, and
// what it wrote is durable, before any begins with the next.
const (
	phaseFormat = iota // headers that complete no volume, or that of a single disk
	phaseFormed
	phaseMkfs
	phaseReady
)

// phases tells which operation of a disk's record belongs to which phase: a header says
// so itself, and what was written before it was written for it.
func phases(log []op) []int {
	list := make([]int, len(log))
	phase := phaseReady
	for i := len(log) - 1; i >= 0; i-- {
		switch o := log[i]; {
		case o.mkfs:
			phase = phaseMkfs
		case bytes.Contains(o.data, []byte(`"state":"ready"`)):
			phase = phaseReady
		case bytes.Contains(o.data, []byte(`"state":"formed"`)):
			phase = phaseFormed
		case bytes.Contains(o.data, []byte(`"state":"forming"`)):
			phase = phaseFormat
		}
		list[i] = phase
	}
	// The sync that ends a phase follows its last write.
	for i := 1; i < len(log); i++ {
		if log[i].data == nil && list[i] > list[i-1] {
			list[i] = list[i-1]
		}
	}
	return list
}

// cut returns what a power cut in a phase may leave of a disk: what was synced before
// is there, and of the sectors written since a prefix, as it is if they are torn, or any
// of them, lost and reordered.
func cut(before *memdisk, log []op, phase int, rng *rand.Rand) *memdisk {
	d := before.clone()
	of := phases(log)
	from, to := 0, 0
	for to < len(log) && of[to] <= phase {
		if of[to] < phase {
			from = to + 1
		}
		to++
	}
	end := from + rng.IntN(to-from+1)
	var pending []op // a sector each
	for i, o := range log[:end] {
		if o.data == nil || i < from {
			for _, p := range pending {
				d.put(p)
			}
			pending = nil
		}
		for at := 0; at < len(o.data); at += sector {
			pending = append(pending, op{offset: o.offset + int64(at), data: o.data[at : at+sector]})
		}
		if i < from { // durable before the phase began
			for _, p := range pending {
				d.put(p)
			}
			pending = nil
		}
	}
	switch variant := rng.IntN(4); variant {
	case 0: // torn
		pending = pending[:rng.IntN(len(pending)+1)]
	case 1: // torn among the first sectors, where headers have theirs
		pending = pending[:rng.IntN(min(len(pending), 12)+1)]
	default: // any of them, more or less
		keep := rng.Float64()
		if variant == 3 {
			keep /= 40 // of the last write hardly anything
		}
		var some []op
		for _, p := range pending {
			if rng.Float64() < keep {
				some = append(some, p)
			}
		}
		pending = some
	}
	for _, p := range pending {
		d.put(p)
	}
	return d
}

// TestCrash cuts the power in every boot that writes, of every layout, and asks the whole
// chain: what is on the disks is looked at, planned for and carried out by the next boot.
// Whatever the cut left, that boot needs nobody's help, formats nothing that was ready,
// and opens what can be opened; the boot after it has nothing to write. Some are cut
// twice. A short run has a tenth of the cuts.
func TestCrash(t *testing.T) {
	object, header := config.Key{Source: source.MustParse("s3://bucket/object")}, config.Key{Source: source.Header.Source()}
	volume := func(k config.Key) config.Volume {
		return config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: config.FormatBlank,
			Filesystem: "ext4", Required: true, Key: k}
	}
	separate := volume(header)
	separate.Layout = config.LayoutSeparate
	bare := volume(object)
	bare.Filesystem = ""
	divided, partly := bare, bare
	divided.Name, divided.Key, partly.Name = "divided", header, "partly"
	anew := volume(config.Key{Source: source.Ephemeral.Source()})
	anew.Format = config.FormatEphemeral

	mirror, pairs := volume(header), volume(header)
	mirror.Layout, pairs.Layout = config.LayoutMirror, config.LayoutStripeMirror

	blank := func(n int) func(*testing.T, config.Volume) *computer {
		return func(*testing.T, config.Volume) *computer {
			c := newComputer()
			for range n {
				c.disks = append(c.disks, newDisk())
			}
			return c
		}
	}
	// used is a machine whose volume is ready and full of data.
	used := func(n int) func(*testing.T, config.Volume) *computer {
		return func(t *testing.T, v config.Volume) *computer {
			c := blank(n)(t, v)
			mustBoot(t, c, v)
			c.use()
			return c
		}
	}
	// until is a machine on which a formatting went as far as a phase, on some disks
	// further than on others.
	until := func(n, phase int) func(*testing.T, config.Volume) *computer {
		return func(t *testing.T, v config.Volume) *computer {
			c := blank(n)(t, v)
			mustBoot(t, c, v)
			for i, d := range c.disks {
				of := phases(d.log)
				half := newDisk()
				for j, o := range d.log {
					if of[j] < phase || of[j] == phase && i%2 == 0 {
						half.put(o)
					}
				}
				c.disks[i] = half
			}
			return c
		}
	}
	torn := func(t *testing.T, v config.Volume) *computer {
		c := used(1)(t, v)
		c.disks[0].put(op{offset: 4096, data: make([]byte, sector)})
		return c
	}
	rows := []struct {
		name   string
		volume config.Volume
		before func(*testing.T, config.Volume) *computer
		states int
		twice  bool
	}{
		{"single, sealed passphrase", volume(object), blank(1), 400, true},
		{"single, key in the header", volume(header), blank(1), 400, false},
		{"single, no file system", bare, blank(1), 300, false},
		{"single, formed without mkfs", volume(header), until(1, phaseFormat), 300, true},
		{"single, header damaged, in use", volume(header), torn, 200, false},
		{"stripe of 2, key in the header", volume(header), blank(2), 400, true},
		{"stripe of 3, sealed passphrase", volume(object), blank(3), 200, false},
		{"stripe of 2, half formed", volume(header), until(2, phaseFormed), 300, false},
		{"stripe of 2, half forming", volume(header), until(2, phaseFormat), 400, true},
		{"stripe of 2, half ready", volume(header), until(2, phaseReady), 200, false},
		{"separate 2, key in the header", separate, blank(2), 300, false},
		{"mirror of 2", mirror, blank(2), 400, true},
		{"mirror of 3, half formed", mirror, until(3, phaseFormed), 300, false},
		{"mirror of 2, half ready", mirror, until(2, phaseReady), 200, false},
		{"mirrors of 2, striped", pairs, blank(4), 200, true},
		{"single, with a share", partly, blank(1), 300, true},
		{"stripe of 2, two shares", divided, blank(2), 400, true},
		{"stripe of 2, two shares, half formed", divided, until(2, phaseFormed), 300, false},
		{"stripe of 2, two shares, half ready", divided, until(2, phaseReady), 200, false},
		{"ephemeral, blank disk", anew, blank(1), 300, false},
		{"ephemeral, used disk", anew, used(1), 500, true},
		{"ephemeral stripe of 2, used disks", anew, used(2), 300, true},
	}
	var total, ran atomic.Int64
	t.Run("layouts", func(t *testing.T) {
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				ran.Add(1)
				if testing.Short() {
					row.states /= 10
				}
				c := row.before(t, row.volume)
				rng := rand.New(rand.NewPCG(7, uint64(i)))
				once := crashes(t, c, row.volume, row.states, rng)
				n, worked := judge(t, once, row.volume, rng)
				total.Add(int64(n))
				t.Logf("%d states after one cut, %d of them booted to the end", n, worked)
				if row.twice {
					var again []*computer
					for range 12 {
						again = append(again, crashes(t, once[rng.IntN(len(once))], row.volume, row.states/20, rng)...)
					}
					n, worked := judge(t, again, row.volume, rng)
					total.Add(int64(n))
					t.Logf("%d states after two, %d of them booted to the end", n, worked)
				}
			})
		}
	})
	t.Logf("%d states in all", total.Load())
	if total.Load() < 5000 && !testing.Short() && int(ran.Load()) == len(rows) && !t.Failed() {
		t.Errorf("%d states are too few to mean anything", total.Load())
	}
}

func mustBoot(t *testing.T, c *computer, v config.Volume) {
	t.Helper()
	if _, err := c.boot(v); err != nil {
		t.Fatal(err)
	}
}

// crashes boots a machine and returns n states that power cuts meanwhile may leave.
func crashes(t *testing.T, before *computer, v config.Volume, n int, rng *rand.Rand) []*computer {
	t.Helper()
	c := newComputer()
	for _, d := range before.disks {
		c.disks = append(c.disks, d.clone())
	}
	mustBoot(t, c, v)
	var list []*computer
	for i := range n {
		state := newComputer()
		for j, d := range c.disks {
			state.disks = append(state.disks, cut(before.disks[j], d.log, i%(phaseReady+1), rng))
		}
		list = append(list, state)
	}
	return list
}

// judge has each state looked at and planned for, and of those that have the same plan
// over disks in the same condition some booted twice. It returns how many there were,
// and how many were booted.
func judge(t *testing.T, states []*computer, v config.Volume, rng *rand.Rand) (n, booted int) {
	t.Helper()
	seen := map[string]int{}
	for i, c := range states {
		found := c.look()
		p := planned(v, found)
		if len(p.Refusals) > 0 {
			t.Fatalf("state %d needs a human: %v\n%s", i, p.Refusals[0], condition(found))
		}
		var data []map[int64]*[sector]byte // of the user's
		for _, s := range p.Steps {
			for _, m := range s.Members {
				ready := m.LUKS != nil && m.LUKS.Set != nil && m.LUKS.Set.State == luks.StateReady && !m.LUKS.Set.Ephemeral
				if ready && s.Format {
					t.Fatalf("state %d: %s was ready, and would be formatted", i, m.Disk.Path)
				}
				if ready && data == nil {
					data = payloads(c)
				}
			}
		}
		key := p.Steps[0].Action() + condition(found)
		if seen[key]++; seen[key] > 1 && rng.IntN(20) > 0 {
			continue
		}
		booted++
		if _, err := c.apply(p); err != nil {
			t.Fatalf("state %d: %v\n%s", i, err, condition(found))
		}
		for d, dev := range c.disks {
			for _, at := range mkfsWrites {
				if (v.Filesystem != "" || sharesOf[v.Name] != nil) && dev.sectors[at/sector] == nil {
					t.Fatalf("state %d: no file system on disk %d, at byte %d", i, d, at)
				}
			}
		}
		for d, before := range data {
			for at, s := range before {
				if now := c.disks[d].sectors[at]; now == nil || *now != *s {
					t.Fatalf("state %d: byte %d of disk %d, which was ready, has changed", i, at*sector, d)
				}
			}
		}
		if v.Format == config.FormatEphemeral {
			continue
		}
		again, err := c.boot(v)
		if err != nil {
			t.Fatalf("state %d, second boot: %v", i, err)
		}
		for _, s := range again.Steps {
			if s.Format || s.Mkfs || s.Mark {
				t.Fatalf("state %d: the second boot would write: %s", i, s.Action())
			}
		}
	}
	return len(states), booted
}

// payloads returns what all disks hold where payloads are.
func payloads(c *computer) (list []map[int64]*[sector]byte) {
	for _, d := range c.disks {
		p := maps.Clone(d.sectors)
		maps.DeleteFunc(p, func(at int64, _ *[sector]byte) bool { return at < dataFrom/sector })
		list = append(list, p)
	}
	return list
}

// condition describes what is on the disks.
func condition(found []*plan.Candidate) string {
	var list []string
	for _, c := range found {
		what := c.Content.What
		if c.LUKS != nil {
			what = fmt.Sprintf("%s, set %v, damaged %v", what, c.LUKS.Set, c.LUKS.Header.Damaged())
			if c.LUKS.Set != nil {
				what = strings.ReplaceAll(what, c.LUKS.Set.UUID, "SET")
			}
		}
		list = append(list, fmt.Sprintf("%s: %v: %s", c.Disk.Name, c.Content.Kind, what))
	}
	return strings.Join(list, "\n")
}
