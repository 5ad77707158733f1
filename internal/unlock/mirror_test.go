package unlock_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
)

// TestMirror: a mirror opens without a member, and says so in the tokens of the others
// before; that member is then left out, and where both were without the other, neither is
// opened and nothing written.
func TestMirror(t *testing.T) {
	t.Parallel()
	v := config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: config.FormatBlank, Layout: config.LayoutMirror,
		Filesystem: "ext4", Required: true, Key: config.Key{Source: source.Header.Source()}}
	c := newComputer(newDisk(), newDisk())
	mustBoot(t, c, v)
	both := c.disks
	alone := func(d *memdisk) *computer {
		one := newComputer(d)
		p, err := one.boot(v)
		if err != nil {
			t.Fatal(err)
		}
		if s := p.Steps[0]; !s.Tell || s.Format || s.Mkfs || s.Missing() != 1 || !slices.Contains(one.names(), "data") {
			t.Fatalf("without a member: %s, tells %v, %d are missing, %v is mapped", s.Action(), s.Tell, s.Missing(), one.names())
		}
		return one
	}
	other := both[1].clone()
	alone(both[0])
	again := newComputer(both[0], both[1])
	p, err := again.boot(v)
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Steps[0]; len(s.Members) != 1 || s.Members[0].Index != 0 || len(s.Out) != 1 || slices.Contains(again.names(), "data_1") {
		t.Errorf("with a member that is behind: %d in step, %d out, %v is mapped", len(s.Members), len(s.Out), again.names())
	}
	alone(other)
	before := []*memdisk{both[0].clone(), other.clone()}
	parted := newComputer(both[0], other)
	if p, err := parted.boot(v); err == nil {
		t.Errorf("members that went on without each other: %s", p.Steps[0].Action())
	}
	for i, d := range parted.disks {
		if !sameSectors(d, before[i]) {
			t.Errorf("disk %d was written to", i)
		}
	}
	for _, c := range parted.look() {
		if c.LUKS.Set.State != luks.StateReady {
			t.Errorf("%s is %s", c.Disk.Name, c.LUKS.Set.State)
		}
	}
}

// TestMirrorGivenUp: a disk that the kernel gave up while the mirror was open is left out when
// it is there with the other. If it was opened by itself meanwhile, neither is opened.
func TestMirrorGivenUp(t *testing.T) {
	t.Parallel()
	v := mirrorOf2()
	a, b := pair(t)
	running := opened(t, []*memdisk{a, b})
	running.drop("data", 1)
	alone := b.clone()

	for range 2 {
		c := newComputer(a, b)
		p, err := c.boot(v)
		if err != nil {
			t.Fatal(err)
		}
		if s := p.Steps[0]; len(s.Members) != 1 || s.Members[0].Index != 0 || s.Missing() != 1 || slices.Contains(c.names(), "data_1") {
			t.Errorf("with a disk that was given up: %d in step, %d missing, %v is mapped", len(s.Members), s.Missing(), c.names())
		}
		if set := c.look()[0].LUKS.Set; !strings.HasPrefix(set.Left, "1=") {
			t.Errorf("the token of the other says that it left %q", set.Left)
		}
	}

	a, b = pair(t)
	opened(t, []*memdisk{a, b}).drop("data", 1)
	opened(t, []*memdisk{b})
	parted := newComputer(a, b)
	before := []*memdisk{a.clone(), b.clone()}
	if p, err := parted.boot(v); err == nil {
		t.Errorf("after the disk that was given up was opened by itself: %s", p.Steps[0].Action())
	} else if !errors.Is(err, plan.ErrApart) {
		t.Error(err)
	}
	for i, d := range parted.disks {
		if !sameSectors(d, before[i]) {
			t.Errorf("disk %d was written to", i)
		}
	}
	if names := parted.names(); len(names) > 0 {
		t.Errorf("%v is mapped", names)
	}

	c := newComputer(alone)
	c.record(0, 1, 2, 9, 0, false)
	if _, err := c.boot(v); err == nil {
		t.Error("a disk was opened that had not been given all data")
	}
}

// TestMirrorOpen: of a mirror that is open the kernel says who is missing.
func TestMirrorOpen(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	for name, row := range map[string]struct {
		change func(c *computer)
		want   int
	}{
		"whole":              {func(*computer) {}, 0},
		"given up":           {func(c *computer) { c.drop("data", 1) }, 1},
		"given up, and gone": {func(c *computer) { c.drop("data", 1); c.disks = c.disks[:1] }, 1},
		"after a power cut":  {func(c *computer) { c.health["data"] = "aa" }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := opened(t, []*memdisk{a.clone(), b.clone()})
			row.change(c)
			active := map[string]string{}
			for name, d := range c.active {
				active[name] = d.UUID
			}
			p := plan.Make(plan.Situation{Config: &config.Config{Volumes: []config.Volume{mirrorOf2()}}, Candidates: c.look(), NewUUID: uuid, Active: active})
			if _, err := c.apply(p); err != nil {
				t.Fatal(err)
			}
			if s := p.Steps[0]; !s.Active || s.Missing() != row.want {
				t.Errorf("%s: %d missing, want %d", s.Action(), s.Missing(), row.want)
			}
		})
	}
}

func (c *computer) names() (list []string) {
	for name := range c.active {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

func sameSectors(a, b *memdisk) bool {
	if len(a.sectors) != len(b.sectors) {
		return false
	}
	for at, s := range a.sectors {
		if o := b.sectors[at]; o == nil || *o != *s {
			return false
		}
	}
	return true
}
