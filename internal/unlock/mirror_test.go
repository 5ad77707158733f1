package unlock_test

import (
	"slices"
	"testing"

	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
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
