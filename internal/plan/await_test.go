package plan

import (
	"testing"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/keys/source"
)

func configOf(volumes ...config.Volume) *config.Config { return &config.Config{Volumes: volumes} }

func selecting(kind config.SelectorKind, value string) config.Volume {
	return config.Volume{Name: "data", Device: config.Selector{Kind: kind, Value: value}}
}

func TestRelevant(t *testing.T) {
	t.Parallel()
	ebs := block.Disk{Name: "nvme7n1", Path: "/dev/nvme7n1", Kind: block.KindEBS, Attach: "sdf", Serial: "vol0123"}
	for name, row := range map[string]struct {
		volume config.Volume
		want   bool
	}{
		"its name":           {selecting(config.SelectEBS, "sdf"), true},
		"another's name":     {selecting(config.SelectEBS, "sdg"), false},
		"instance store":     {selecting(config.SelectInstanceStore, ""), false},
		"only what is on it": {selecting(config.SelectUUID, "some"), true},
		"label":              {selecting(config.SelectLabel, "some"), true},
		"a file":             {selecting(config.SelectFile, "/disk.img"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Relevant(configOf(row.volume), ebs); got != row.want {
				t.Errorf("Relevant = %v, want %v", got, row.want)
			}
		})
	}
}

func TestAmbiguous(t *testing.T) {
	t.Parallel()
	store, ebs := selecting(config.SelectInstanceStore, ""), selecting(config.SelectEBS, "sdf")
	for name, row := range map[string]struct {
		volume config.Volume
		disk   block.Disk
		want   bool
	}{
		"Xen":                          {store, block.Disk{Name: "xvdb"}, true},
		"Xen, EBS":                     {ebs, block.Disk{Name: "xvdf"}, true},
		"Xen, a partition":             {store, block.Disk{Name: "xvda1", Parent: "xvda"}, false},
		"virtio, EBS":                  {ebs, block.Disk{Name: "vdb"}, true},
		"virtio has no instance store": {store, block.Disk{Name: "vdb"}, false},
		"NVMe says what it is":         {ebs, block.Disk{Name: "nvme0n1", Kind: block.KindInstanceStore}, false},
		"found already":                {store, block.Disk{Name: "xvdb", Kind: block.KindInstanceStore}, false},
		"asked for by its path":        {selecting(config.SelectPath, "/dev/xvdc"), block.Disk{Name: "xvdb", Path: "/dev/xvdb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := []*Candidate{{Disk: row.disk}}
			if got := Ambiguous(configOf(row.volume), []block.Disk{row.disk}, found); got != row.want {
				t.Errorf("Ambiguous = %v, want %v", got, row.want)
			}
		})
	}
}

func TestPromising(t *testing.T) {
	t.Parallel()
	store := selecting(config.SelectInstanceStore, "")
	for name, row := range map[string]struct {
		found []*Candidate
		want  bool
	}{
		"nothing yet":          {nil, false},
		"blank":                {[]*Candidate{blankDisk(0)}, true},
		"LUKS":                 {[]*Candidate{luksDisk(0), luksDisk(1)}, true},
		"one is to be refused": {[]*Candidate{blankDisk(0), foreignDisk(1)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Promising(configOf(store), row.found); got != row.want {
				t.Errorf("Promising = %v, want %v", got, row.want)
			}
		})
	}
}

func TestNeedsKey(t *testing.T) {
	t.Parallel()
	sealed, random := &config.Volume{Key: config.Key{Source: source.MustParse("s3://bucket/key")}}, &config.Volume{Key: config.Key{Source: source.Ephemeral.Source()}}
	for name, row := range map[string]struct {
		steps []Step
		want  bool
	}{
		"nothing to do":       {nil, false},
		"sealed":              {[]Step{{Volume: random}, {Volume: sealed}}, true},
		"sealed, but open":    {[]Step{{Volume: sealed, Active: true}}, false},
		"ephemeral keys only": {[]Step{{Volume: random}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := (&Plan{Steps: row.steps}).NeedsKey(); got != row.want {
				t.Errorf("NeedsKey = %v, want %v", got, row.want)
			}
		})
	}
}

// TestWords holds what a plan says of its disks.
func TestWords(t *testing.T) {
	t.Parallel()
	s := Step{Members: []Member{{Candidate: with(blankDisk(1), func(c *Candidate) { c.Content.What = "blank" })}, {Candidate: foreignDisk(2)}}}
	if got, want := s.DiskList(), "nvme1n1 (blank), nvme2n1 (ext4 file system)"; got != want {
		t.Errorf("DiskList = %q, want %q", got, want)
	}
	v := &config.Volume{Name: "data"}
	for want, r := range map[string]*Refusal{
		`volume "data": no device sdf`:                                    {Volume: v, Reason: "no device sdf", Hint: "attach it"},
		`refusing /dev/nvme1n1, /dev/nvme2n1 for volume "data": two sets`: {Volume: v, Reason: "two sets", Hint: "attach it", Devices: []string{"/dev/nvme1n1", "/dev/nvme2n1"}},
	} {
		if r.Error() != want || hint.Of(r) != "attach it" {
			t.Errorf("refusal = %q, %q, want %q, %q", r.Error(), hint.Of(r), want, "attach it")
		}
	}
}
