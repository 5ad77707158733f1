package unlock_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

func mirrorOf2() config.Volume {
	return config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: config.FormatBlank, Layout: config.LayoutMirror,
		Filesystem: "ext4", Required: true, Key: config.Key{Source: source.Header.Source()}}
}

// join has a disk join the mirror that is open; "": the only one that may be meant.
func (c *computer) join(ctx context.Context, v config.Volume, disk string, progress func(done, total int64)) error {
	active := map[string]string{}
	for name, d := range c.active {
		active[name] = d.UUID
	}
	p := plan.Make(plan.Situation{Config: &config.Config{Volumes: []config.Volume{v}}, Candidates: c.look(), NewUUID: uuid, Active: active})
	for _, r := range p.Refusals {
		return r
	}
	a := unlock.Apply{Keys: giveKey, Rec: status.NewRecorder(), Log: func(string, ...any) {}, Open: c.open, Kernel: c}
	return a.Join(ctx, &p.Steps[0], disk, unlock.NewEpoch, progress)
}

func ignore(int64, int64) {}

// pair returns the two disks of a mirror that has been ready.
func pair(t *testing.T) (a, b *memdisk) {
	t.Helper()
	c := newComputer(newDisk(), newDisk())
	mustBoot(t, c, mirrorOf2())
	return c.disks[0], c.disks[1]
}

// opened is a machine whose mirror is open, to which disks are attached then.
func opened(t *testing.T, disks []*memdisk, attached ...*memdisk) *computer {
	t.Helper()
	c := newComputer(disks...)
	mustBoot(t, c, mirrorOf2())
	c.disks = append(c.disks, attached...)
	return c
}

// TestJoin: a disk that joins is in step afterwards, for good; one that may hold data that the
// others lack is not written to.
func TestJoin(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		open func(t *testing.T) *computer
		disk string
		want string // part of the error; "": it joins
	}{
		"a blank disk": {open: func(t *testing.T) *computer {
			a, _ := pair(t)
			return opened(t, []*memdisk{a}, newDisk())
		}},
		"a blank disk, that is listed first": {open: func(t *testing.T) *computer {
			_, b := pair(t)
			c := newComputer(newDisk(), b)
			mustBoot(t, c, mirrorOf2())
			return c
		}},
		"a disk that was away": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			return opened(t, []*memdisk{a}, b)
		}},
		"the first of two, that was away": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			return opened(t, []*memdisk{b}, a)
		}},
		"a disk that the kernel had given up": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			running := opened(t, []*memdisk{a, b})
			running.drop("data", 1)
			return opened(t, []*memdisk{a, b})
		}},
		"several, and none is named": {open: func(t *testing.T) *computer {
			a, _ := pair(t)
			return opened(t, []*memdisk{a}, newDisk(), newDisk())
		}, want: "several disks could join the mirror: /dev/nvme1n1, /dev/nvme2n1"},
		"several, one is named": {open: func(t *testing.T) *computer {
			a, _ := pair(t)
			return opened(t, []*memdisk{a}, newDisk(), newDisk())
		}, disk: "/dev/nvme2n1"},
		"all are there": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			return opened(t, []*memdisk{a, b}, newDisk())
		}, want: "all 2 disks of the mirror are in step"},
		"none is there": {open: func(t *testing.T) *computer {
			a, _ := pair(t)
			return opened(t, []*memdisk{a})
		}, want: "no disk is here that could join the mirror"},
		"it went on by itself": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			opened(t, []*memdisk{b})
			return opened(t, []*memdisk{a}, b)
		}, want: "/dev/nvme1n1 may hold data that the others lack"},
		"it went on, and the kernel had given up the other": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			opened(t, []*memdisk{a, b}).drop("data", 1)
			return opened(t, []*memdisk{b}, a)
		}, want: "/dev/nvme1n1 may hold data that the others lack"},
		"its superblock is gone": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			b.put(op{offset: dataFrom, data: make([]byte, sector)})
			return opened(t, []*memdisk{a}, b)
		}, want: "/dev/nvme1n1: the kernel's superblock of the mirror is not there"},
		"another has its place": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			third := newDisk()
			c := opened(t, []*memdisk{a}, third)
			if err := c.join(t.Context(), mirrorOf2(), "", ignore); err != nil {
				t.Fatal(err)
			}
			c.disks = append(c.disks, b)
			return c
		}, want: "all 2 disks of the mirror are in step"},
		"the kernel has given up a disk": {open: func(t *testing.T) *computer {
			a, b := pair(t)
			c := opened(t, []*memdisk{a, b}, newDisk())
			c.drop("data", 1)
			return c
		}, want: "the kernel has given up disk 2 of the mirror (AD)"},
		"it holds something else": {open: func(t *testing.T) *computer {
			a, _ := pair(t)
			other := newDisk()
			other.put(op{data: []byte(strings.Repeat("of somebody else", sector/16))})
			return opened(t, []*memdisk{a}, other)
		}, want: "/dev/nvme1n1 holds "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := row.open(t)
				var before []*memdisk
				for _, d := range c.disks {
					before = append(before, d.clone())
				}
				names := strings.Join(c.names(), " ")
				err := c.join(t.Context(), mirrorOf2(), row.disk, ignore)
				if row.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					whole(t, c)
					return
				}
				if err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("Join = %v, want %s", err, row.want)
				}
				for i, d := range c.disks {
					if !sameSectors(d, before[i]) {
						t.Errorf("disk %d was written to", i)
					}
				}
				if now := strings.Join(c.names(), " "); now != names {
					t.Errorf("%s are mapped, were %s", now, names)
				}
			})
		})
	}
}

// whole boots those disks that are members anew: both are in step, and nothing is to be told.
func whole(t *testing.T, c *computer) {
	t.Helper()
	var members []*memdisk
	for i, f := range c.look() {
		if f.LUKS != nil && f.LUKS.Set != nil {
			members = append(members, c.disks[i])
		}
	}
	next := newComputer(members...)
	p, err := next.boot(mirrorOf2())
	if err != nil {
		t.Fatal(err)
	}
	if s := p.Steps[0]; s.Missing() != 0 || s.Tell || s.Mark || s.Format || s.Mkfs || len(s.Out) != 0 {
		t.Errorf("the next boot: %d are missing, tells %v, marks %v, %d out", s.Missing(), s.Tell, s.Mark, len(s.Out))
	}
}

// TestJoinInterrupted: until a disk has all data it counts as behind, also where the others
// are gone; said again, joining goes on, or begins again after a reboot.
func TestJoinInterrupted(t *testing.T) {
	t.Parallel()
	for name, reboots := range map[string]bool{"said again": false, "after a reboot": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				c := opened(t, []*memdisk{a}, b)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := c.join(ctx, mirrorOf2(), "", func(_, _ int64) { cancel() }); err == nil {
					t.Fatal("it was not interrupted")
				}
				if set := c.look()[1].LUKS.Set; set.State != luks.StateForming {
					t.Errorf("the disk that joins is %s", set.State)
				}
				if p, err := newComputer(b.clone()).boot(mirrorOf2()); err == nil {
					t.Errorf("the disk that was joining, alone: %s", p.Steps[0].Action())
				}
				if reboots {
					c = opened(t, []*memdisk{a, b})
				}
				if err := c.join(t.Context(), mirrorOf2(), "", ignore); err != nil {
					t.Fatal(err)
				}
				whole(t, c)
			})
		})
	}
}
