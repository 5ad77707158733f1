package plan

import (
	"fmt"
	"strings"
	"testing"

	"unlock/internal/config"
	"unlock/internal/luks"
)

// TestShares is the decision table of volumes that are divided.
func TestShares(t *testing.T) {
	t.Parallel()
	share := func(name string, percent, size int64) config.Volume {
		return config.Volume{Name: name, Device: config.Selector{Kind: config.SelectShare, Value: "data"}, Percent: percent, Size: size, Filesystem: "ext4"}
	}
	two := []config.Volume{share("a", 25, 0), share("b", 0, 0)}
	const divided = "a=1048576+402653184 b=403701760+771751936"
	stripe := func(index int, state luks.State, shares string) *Candidate {
		return with(member(index, "S", index, 2, Chunk, state), func(c *Candidate) { c.LUKS.Set.Shares = shares })
	}
	both := func(state luks.State, shares string) []*Candidate {
		return []*Candidate{stripe(0, state, shares), stripe(1, state, shares)}
	}
	small := func(n int) *Candidate {
		return with(blankDisk(n), func(c *Candidate) { c.Disk.Size = 40 << 20 })
	}
	const ofStripe = "a=1048576+527433728 b=528482304+1585446912" // of twice 1,008 MiB, less one
	for name, row := range map[string]struct {
		shares []config.Volume
		format config.Format
		disks  []*Candidate
		want   string // action, shares, whether file systems are made; or the refusal
	}{
		"blank":                  {two, config.FormatBlank, []*Candidate{blankDisk(0), blankDisk(1)}, "format " + ofStripe + " mkfs"},
		"blank, one of a size":   {[]config.Volume{share("b", 0, 100<<20), share("a", 0, 0)}, config.FormatBlank, []*Candidate{blankDisk(0)}, "format b=1048576+104857600 a=105906176+951058432 mkfs"},
		"blank, some left":       {[]config.Volume{share("a", 10, 0)}, config.FormatBlank, []*Candidate{blankDisk(0)}, "format a=1048576+104857600 mkfs"},
		"blank, never":           {two, config.FormatNever, []*Candidate{blankDisk(0)}, `refuse: blank, and format is "never"`},
		"too small":              {two, config.FormatBlank, []*Candidate{small(0)}, `refuse: the disks have 24117248 bytes, which are too few for share "a"`},
		"too large":              {[]config.Volume{share("a", 0, 900<<20), share("b", 0, 900<<20)}, config.FormatBlank, []*Candidate{blankDisk(0)}, "refuse: the disks have"},
		"no room for the rest":   {[]config.Volume{share("a", 0, 1007<<20), share("b", 0, 0)}, config.FormatBlank, []*Candidate{blankDisk(0)}, "refuse: the disks have"},
		"ready":                  {two, config.FormatBlank, both(luks.StateReady, divided), "open " + divided},
		"ready, never":           {two, config.FormatNever, both(luks.StateReady, divided), "open " + divided},
		"ready, other sizes":     {[]config.Volume{share("a", 60, 0), share("b", 0, 1<<30)}, config.FormatBlank, both(luks.StateReady, divided), "open " + divided},
		"ready, other order":     {[]config.Volume{two[1], two[0]}, config.FormatBlank, both(luks.StateReady, divided), "open " + divided},
		"ready, one more":        {append(two[:2:2], share("c", 1, 0)), config.FormatBlank, both(luks.StateReady, divided), "refuse: it was divided into the shares a, b, and the configuration has a, b, c"},
		"ready, one less":        {two[:1], config.FormatBlank, both(luks.StateReady, divided), "refuse: it was divided into the shares a, b, and the configuration has a"},
		"ready, renamed":         {[]config.Volume{share("a", 1, 0), share("x", 1, 0)}, config.FormatBlank, both(luks.StateReady, divided), "refuse: it was divided"},
		"ready, not divided":     {two, config.FormatBlank, both(luks.StateReady, ""), "refuse: it was divided into the shares (none)"},
		"ready, not configured":  {nil, config.FormatBlank, both(luks.StateReady, divided), "refuse: it was divided into the shares a, b, and the configuration has (none)"},
		"formed":                 {two, config.FormatBlank, both(luks.StateFormed, divided), "finish formatting " + divided + " mkfs"},
		"formed, never":          {two, config.FormatNever, both(luks.StateFormed, divided), "refuse: its formatting was interrupted"},
		"formed, one more":       {append(two[:2:2], share("c", 1, 0)), config.FormatBlank, both(luks.StateFormed, divided), "refuse: it was divided"},
		"forming":                {two, config.FormatBlank, both(luks.StateForming, divided), "format " + ofStripe + " mkfs"},
		"forming, divided anew":  {[]config.Volume{share("x", 0, 0)}, config.FormatBlank, both(luks.StateForming, divided), "format x=1048576+2112880640 mkfs"},
		"half ready":             {two, config.FormatBlank, []*Candidate{stripe(0, luks.StateReady, divided), stripe(1, luks.StateFormed, divided)}, "open " + divided},
		"half blank":             {two, config.FormatBlank, []*Candidate{stripe(0, luks.StateFormed, divided), blankDisk(1)}, "refuse: 1 of 2 disks of the stripe"},
		"disks do not agree":     {two, config.FormatBlank, []*Candidate{stripe(0, luks.StateReady, divided), stripe(1, luks.StateReady, "a=1048576+402653184")}, "refuse: the disks belong to different sets"},
		"somebody else's":        {two, config.FormatBlank, []*Candidate{luksDisk(0)}, "refuse: it was divided into the shares (none)"},
		"something on the disk":  {two, config.FormatBlank, []*Candidate{blankDisk(0), foreignDisk(1)}, "refuse: it holds ext4"},
		"no disk":                {two, config.FormatBlank, nil, "absent data a b"},
		"ephemeral, used before": {two, config.FormatEphemeral, []*Candidate{ephemeral(stripe(0, luks.StateReady, divided)), ephemeral(stripe(1, luks.StateReady, divided))}, "format " + ofStripe + " mkfs"},
		"whatever there is":      {nil, config.FormatNever, both(luks.StateReady, divided), "open data-a=1048576+402653184 data-b=403701760+771751936"},
		"whatever, and none":     {nil, config.FormatNever, both(luks.StateReady, ""), "open "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: row.format, Required: true}
			n := 0
			p := Make(Situation{Config: &config.Config{Volumes: append([]config.Volume{whole}, row.shares...)}, Candidates: row.disks, Shares: strings.HasPrefix(name, "whatever"),
				NewUUID: func() string { n++; return fmt.Sprintf("new-%d", n) }})
			var got string
			switch {
			case len(p.Refusals) > 0:
				got = "refuse: " + p.Refusals[0].Reason
			case len(p.Absent) > 0:
				got = "absent"
				for _, v := range p.Absent {
					got += " " + v.Name
				}
			default:
				s := p.Steps[0]
				var shares luks.Shares
				for _, share := range s.Shares {
					if share.Volume == nil || share.Volume.Name != share.Name {
						t.Errorf("share %q is of volume %v", share.Name, share.Volume)
					}
					shares = append(shares, share.Share)
				}
				if got = s.Action() + " " + shares.String(); s.Mkfs {
					got += " mkfs"
				}
			}
			if len(p.Steps) > 1 || !strings.HasPrefix(got, row.want) || !strings.HasPrefix(row.want, "refuse") && got != row.want {
				t.Errorf("%d steps; %s, want %s", len(p.Steps), got, row.want)
			}
		})
	}
}
