package plan

import (
	"fmt"
	"strings"
	"testing"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/luks"
)

// TestPlanMirror: what is done with disks of a mirror, where some are missing, behind or
// new, and where nobody can tell which of them are wanted.
func TestPlanMirror(t *testing.T) {
	t.Parallel()
	mirror := config.Volume{Format: config.FormatBlank, Filesystem: "ext4", Layout: config.LayoutMirror}
	striped := config.Volume{Format: config.FormatBlank, Filesystem: "ext4", Layout: config.LayoutStripeMirror}
	stripe := config.Volume{Format: config.FormatBlank, Filesystem: "ext4"}
	two, never := mirror, mirror
	two.Count, never.Format = 2, config.FormatNever
	leg := func(n, index, count, copies int, state luks.State, epochs ...string) *Candidate {
		epochs = append(epochs, "", "")
		return with(member(n, "S", index, count, 0, state), func(c *Candidate) {
			t := c.LUKS.Set
			t.Version, t.Copies, t.Size, t.Epoch, t.Before, t.Left = luks.VersionMirror, copies, 100<<20, epochs[0], epochs[1], epochs[2]
			if copies != count {
				t.Chunk = Chunk
			}
		})
	}
	of2 := func(n, index int, epochs ...string) *Candidate {
		return leg(n, index, 2, 2, luks.StateReady, epochs...)
	}
	of4 := func(n, index int, epochs ...string) *Candidate {
		return leg(n, index, 4, 2, luks.StateReady, epochs...)
	}
	unreadable := with(blankDisk(1), func(c *Candidate) { c.Content = block.Content{What: "input/output error"} })
	for name, row := range map[string]struct {
		volume config.Volume
		disks  []*Candidate
		want   string
	}{
		"blank":          {mirror, []*Candidate{blankDisk(0), blankDisk(1)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark copies 2"},
		"blank, three":   {mirror, []*Candidate{blankDisk(0), blankDisk(1), blankDisk(2)}, "format data[nvme0=data_0@0 nvme1=data_1@1 nvme2=data_2@2] set new-1/3 mkfs mark copies 3"},
		"blank, one":     {mirror, []*Candidate{blankDisk(0)}, "refuse: a mirror has at least 2 disks, and 1 is here"},
		"blank, counted": {two, []*Candidate{blankDisk(0)}, "refuse: 1 of 2 disks are here"},
		"striped, blank": {striped, []*Candidate{blankDisk(0), blankDisk(1), blankDisk(2), blankDisk(3)},
			"format data[nvme0=data_0@0 nvme1=data_1@1 nvme2=data_2@2 nvme3=data_3@3] set new-1/4 mkfs mark copies 2"},
		"striped, blank, three": {striped, []*Candidate{blankDisk(0), blankDisk(1), blankDisk(2)}, "refuse: a stripe over mirrors has 4 disks or more, in pairs, and 3 are here"},
		"foreign":               {mirror, []*Candidate{blankDisk(0), foreignDisk(1)}, "refuse: it holds ext4 file system"},

		"forming":              {mirror, []*Candidate{leg(0, 0, 2, 2, luks.StateForming, "e0"), blankDisk(1)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark copies 2"},
		"half formed":          {mirror, []*Candidate{leg(0, 0, 2, 2, luks.StateFormed, "e0"), leg(1, 1, 2, 2, luks.StateForming, "e0")}, "finish formatting data[nvme0=data_0@0 nvme1=data_1@1] set S/2 mkfs mark copies 2"},
		"half formed, missing": {mirror, []*Candidate{leg(0, 0, 2, 2, luks.StateFormed, "e0")}, "refuse: 1 of 2 disks of the stripe are here"},
		"half ready":           {mirror, []*Candidate{of2(0, 0, "e0"), leg(1, 1, 2, 2, luks.StateFormed, "e0")}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 mark copies 2"},

		"half ready, and the header of one was torn": {mirror, []*Candidate{of2(0, 0, "e0"), leg(1, 1, 2, 2, luks.StateForming, "e0")}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 mark copies 2"},
		"joining was cut, of another epoch":          {mirror, []*Candidate{leg(0, 0, 2, 2, luks.StateForming, "e1"), of2(1, 1, "e0")}, "open data[nvme1=data_1@1] set S/2 copies 2 out nvme0 tell new after e0 left 0=e0:2"},

		"ready":             {mirror, []*Candidate{of2(0, 0, "e0"), of2(1, 1, "e0")}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 copies 2"},
		"ready, never":      {never, []*Candidate{of2(0, 0, "e0"), of2(1, 1, "e0")}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 copies 2"},
		"ready, reordered":  {mirror, []*Candidate{of2(0, 1, "e0"), of2(1, 0, "e0")}, "open data[nvme1=data_0@0 nvme0=data_1@1] set S/2 copies 2"},
		"missing":           {mirror, []*Candidate{of2(1, 1, "e0")}, "open data[nvme1=data_1@1] set S/2 copies 2 tell new after e0 left 0=e0:2"},
		"missing, counted":  {two, []*Candidate{of2(1, 1, "e0")}, "open data[nvme1=data_1@1] set S/2 copies 2 tell new after e0 left 0=e0:2"},
		"missing, again":    {mirror, []*Candidate{of2(1, 1, "e1", "e0", "0=e0:2")}, "open data[nvme1=data_1@1] set S/2 copies 2 tell new after e1 left 0=e0:2"},
		"replaced by blank": {mirror, []*Candidate{of2(0, 0, "e0"), blankDisk(1)}, "open data[nvme0=data_0@0] set S/2 copies 2 out nvme1 tell new after e0 left 1=e0:1"},
		"one cannot be read": {mirror, []*Candidate{of2(0, 0, "e0"), unreadable},
			"open data[nvme0=data_0@0] set S/2 copies 2 out nvme1 tell new after e0 left 1=e0:1"},
		"one is foreign":  {mirror, []*Candidate{of2(0, 0, "e0"), foreignDisk(1)}, "open data[nvme0=data_0@0] set S/2 copies 2 out nvme1 tell new after e0 left 1=e0:1"},
		"behind":          {mirror, []*Candidate{of2(0, 0, "e0"), of2(1, 1, "e1", "e0", "0=e0:2")}, "open data[nvme1=data_1@1] set S/2 copies 2 out nvme0 tell new after e1 left 0=e0:2"},
		"joining was cut": {mirror, []*Candidate{leg(0, 0, 2, 2, luks.StateForming, "e0"), of2(1, 1, "e1", "e0", "0=e0:2")}, "open data[nvme1=data_1@1] set S/2 copies 2 out nvme0 tell new after e1 left 0=e0:2"},
		"joined, others untold": {mirror, []*Candidate{of2(0, 0, "e2", "e1"), of2(1, 1, "e1", "e0", "0=e0:2")},
			"open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 copies 2 tell e2 after e1 left "},
		"each without the other": {mirror, []*Candidate{of2(0, 0, "e2", "e0", "1=e0:1"), of2(1, 1, "e1", "e0", "0=e0:2")},
			"refuse: the members of the mirror have gone on without each other, and each may hold data that the others lack"},
		"went on, then was replaced": {mirror, []*Candidate{of2(0, 0, "e5", "e4"), of2(1, 1, "e1", "e0", "0=e0:2")},
			"refuse: the members of the mirror have gone on without each other, and each may hold data that the others lack"},
		"two in one place": {mirror, []*Candidate{of2(0, 0, "e0"), of2(1, 0, "e1", "e0")}, "refuse: /dev/nvme0n1 and /dev/nvme1n1 both say they are disk 0 of set S"},
		"as a stripe":      {stripe, []*Candidate{of2(0, 0, "e0"), of2(1, 1, "e0")}, "refuse: the disks were not formatted with this layout"},
		"striped as plain": {mirror, []*Candidate{of4(0, 0, "e0"), of4(1, 1, "e0"), of4(2, 2, "e0"), of4(3, 3, "e0")}, "refuse: the disks were not formatted with this layout"},
		"in use": {mirror, []*Candidate{with(of2(0, 0, "e0"), func(c *Candidate) { c.Disk.InUse = true }), of2(1, 1, "e0")},
			"refuse: in use: mounted, partitioned or mapped by something else"},
		"two sets": {mirror, []*Candidate{of2(0, 0, "e0"), with(of2(1, 1, "e0"), func(c *Candidate) { c.LUKS.Set.UUID = "T" })}, "refuse: the disks belong to different sets (S and T)"},
		"of another size": {mirror, []*Candidate{of2(0, 0, "e0"), with(of2(1, 1, "e0"), func(c *Candidate) { c.LUKS.Set.Size++ })},
			"refuse: /dev/nvme1n1 does not say of the mirror what the others say"},

		"striped, two missing": {striped, []*Candidate{of4(0, 0, "e0"), of4(3, 3, "e0")}, "open data[nvme0=data_0@0 nvme3=data_3@3] set S/4 copies 2 tell new after e0 left 1=e0:9 2=e0:9"},
		"striped, a pair gone": {striped, []*Candidate{of4(0, 0, "e0"), of4(1, 1, "e0")}, "refuse: disks 3 to 4 of the mirror are missing, which alone have a part of the data"},
	} {
		t.Run(name, func(t *testing.T) {
			p := Make(situation(row.volume, row.disks...))
			got := summary(p)
			for _, s := range p.Steps {
				got += fmt.Sprintf(" copies %d", s.Copies)
				for _, c := range s.Out {
					got += " out " + strings.TrimSuffix(c.Disk.Name, "n1")
				}
				if s.Tell {
					got += fmt.Sprintf(" tell %s after %s left %s", s.Mirror.Epoch, s.Mirror.Before, s.Mirror.Left)
				}
			}
			if got != row.want {
				t.Errorf("Make =\n%s, want\n%s", got, row.want)
			}
		})
	}
}
