package plan

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"unlock/internal/aws/arn"
	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
)

// Contents of candidates.
func disk(n int) block.Disk {
	name := fmt.Sprintf("nvme%dn1", n)
	return block.Disk{Name: name, Path: "/dev/" + name, Size: 1 << 30, SectorSize: 512, Kind: block.KindInstanceStore,
		Serial: fmt.Sprintf("AWS%017X", n)}
}

func blankDisk(n int) *Candidate {
	return &Candidate{Disk: disk(n), Content: block.Content{Kind: block.Blank}}
}

func luksDisk(n int) *Candidate {
	c := &Candidate{Disk: disk(n), Content: block.Content{Kind: block.LUKS, UUID: fmt.Sprintf("uuid-%d", n), Label: "data"}}
	c.LUKS = &LUKS{Version: 2, UUID: c.Content.UUID}
	return c
}

// member is a disk of a set that unlock made.
func member(n int, set string, index, count, chunk int, state luks.State) *Candidate {
	c := luksDisk(n)
	c.LUKS.Set = &luks.SetToken{Version: 1, UUID: set, Index: index, Count: count, Chunk: chunk, State: state}
	c.LUKS.KMS = &luks.KMSToken{Version: 1, Ciphertext: []byte("blob " + set)}
	return c
}

func ephemeral(c *Candidate) *Candidate {
	c.LUKS.Set.Ephemeral = true
	return c
}

func with(c *Candidate, change func(*Candidate)) *Candidate {
	change(c)
	return c
}

func foreignDisk(n int) *Candidate {
	return &Candidate{Disk: disk(n), Content: block.Content{Kind: block.Foreign, What: "ext4 file system"}}
}

func begunDisk(n int) *Candidate {
	return &Candidate{Disk: disk(n), Content: block.Content{Kind: block.Begun}}
}

// begunAnew is a disk whose ephemeral volume was being replaced.
func begunAnew(n int) *Candidate {
	return with(begunDisk(n), func(c *Candidate) { c.Content.Over = luks.OverEphemeral })
}

// clone is a copy of luksDisk(0).
func clone(n int) *Candidate {
	return with(luksDisk(n), func(c *Candidate) { c.LUKS.UUID, c.Content.UUID = "uuid-0", "uuid-0" })
}

func situation(v config.Volume, candidates ...*Candidate) Situation {
	if v.Name == "" {
		v.Name = "data"
	}
	if v.Device.Kind == config.SelectInvalid {
		v.Device.Kind = config.SelectInstanceStore
	}
	if v.Key.Source.Kind == nil {
		v.Key = config.Key{Source: source.Header.Source(), KMSKeys: []arn.ARN{arn.MustParse("arn:aws:kms:us-east-1:111122223333:key/1")}}
	}
	v.Required = true
	n := 0
	return Situation{Config: &config.Config{Volumes: []config.Volume{v}}, Candidates: candidates,
		NewUUID: func() string { n++; return fmt.Sprintf("new-%d", n) }}
}

// summary writes a plan in one line.
func summary(p *Plan) string {
	var parts []string
	for _, s := range p.Steps {
		var disks []string
		for _, m := range s.Members {
			disks = append(disks, fmt.Sprintf("%s=%s@%d", strings.TrimSuffix(m.Disk.Name, "n1"), m.Mapping, m.Index))
		}
		flags := ""
		if s.Mkfs {
			flags += " mkfs"
		}
		if s.Mark {
			flags += " mark"
		}
		parts = append(parts, fmt.Sprintf("%s %s[%s] set %s/%d%s", s.Action(), s.Name, strings.Join(disks, " "), s.Set, s.Count, flags))
	}
	for _, r := range p.Refusals {
		parts = append(parts, "refuse: "+r.Reason)
	}
	for _, v := range p.Absent {
		parts = append(parts, "absent "+v.Name)
	}
	return strings.Join(parts, "; ")
}

func TestPlan(t *testing.T) {
	never := config.Volume{}
	onBlank := config.Volume{Format: config.FormatBlank, Filesystem: "ext4"}
	anew := config.Volume{Format: config.FormatEphemeral, Filesystem: "ext4", Key: config.Key{Source: source.Ephemeral.Source()}}
	counted := func(n int) config.Volume { v := onBlank; v.Count = n; return v }
	separate := config.Volume{Format: config.FormatBlank, Layout: config.LayoutSeparate}
	stripe := func(n, index int, state luks.State) *Candidate { return member(n, "S", index, 2, Chunk, state) }
	single := func(state luks.State) *Candidate { return member(0, "uuid-0", 0, 1, 0, state) }
	invalid := with(luksDisk(0), func(c *Candidate) { c.LUKS, c.Err = nil, errors.New("bad checksum") })

	for name, row := range map[string]struct {
		volume config.Volume
		disks  []*Candidate
		want   string
	}{
		"none":               {never, nil, "absent data"},
		"blank, never":       {never, []*Candidate{blankDisk(0)}, `refuse: blank, and format is "never"`},
		"blank, blank":       {onBlank, []*Candidate{blankDisk(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"blank, ephemeral":   {anew, []*Candidate{blankDisk(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"begun":              {onBlank, []*Candidate{begunDisk(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"begun, ephemeral":   {anew, []*Candidate{begunDisk(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"begun, never":       {never, []*Candidate{begunDisk(0)}, `refuse: its formatting was interrupted, and format is "never"`},
		"begun and foreign":  {onBlank, []*Candidate{begunDisk(0), foreignDisk(1)}, "refuse: it holds ext4 file system"},
		"begun and ready":    {onBlank, []*Candidate{begunDisk(0), stripe(1, 1, luks.StateReady)}, "refuse: 1 of 2 disks of the stripe are here"},
		"begun and forming":  {onBlank, []*Candidate{begunDisk(0), stripe(1, 1, luks.StateForming)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},
		"foreign, never":     {never, []*Candidate{foreignDisk(0)}, "refuse: it holds ext4 file system"},
		"foreign, blank":     {onBlank, []*Candidate{foreignDisk(0)}, "refuse: it holds ext4 file system"},
		"foreign, ephemeral": {anew, []*Candidate{foreignDisk(0)}, "refuse: it holds ext4 file system"},
		"unreadable": {onBlank, []*Candidate{with(blankDisk(0), func(c *Candidate) { c.Content = block.Content{What: "input/output error"} })},
			"refuse: cannot be read: input/output error"},
		"invalid LUKS":            {onBlank, []*Candidate{invalid}, "refuse: bad checksum"},
		"invalid LUKS, ephemeral": {anew, []*Candidate{invalid}, "refuse: bad checksum"},
		"in use":                  {onBlank, []*Candidate{with(blankDisk(0), func(c *Candidate) { c.Disk.InUse = true })}, "refuse: in use: mounted, partitioned or mapped by something else"},
		"too small":               {onBlank, []*Candidate{with(blankDisk(0), func(c *Candidate) { c.Disk.Size = 8 << 20 })}, "refuse: blank, but its 8388608 bytes are too few for a LUKS header"},
		"read-only":               {onBlank, []*Candidate{with(blankDisk(0), func(c *Candidate) { c.Disk.ReadOnly = true })}, "refuse: blank, but read-only"},

		"anyone's LUKS, sealed passphrase": {config.Volume{Key: config.Key{Source: source.MustParse("s3://bucket/key")}}, []*Candidate{luksDisk(0)}, "open data[nvme0=data@0] set uuid-0/1"},
		"anyone's LUKS, header":            {onBlank, []*Candidate{luksDisk(0)}, `refuse: the key source is "header", but the LUKS header holds no aws-kms token`},
		"anyone's LUKS, ephemeral":         {anew, []*Candidate{luksDisk(0)}, "refuse: /dev/nvme0n1 holds a LUKS volume that is not ephemeral"},
		"ours, ready":                      {onBlank, []*Candidate{single(luks.StateReady)}, "open data[nvme0=data@0] set uuid-0/1"},
		"ours, ready, never":               {never, []*Candidate{single(luks.StateReady)}, "open data[nvme0=data@0] set uuid-0/1"},
		"ours, formed":                     {onBlank, []*Candidate{single(luks.StateFormed)}, "finish formatting data[nvme0=data@0] set uuid-0/1 mkfs mark"},
		"ours, formed, never":              {never, []*Candidate{single(luks.StateFormed)}, `refuse: its formatting was interrupted, and format is "never"`},
		"ours, forming":                    {onBlank, []*Candidate{single(luks.StateForming)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"ours, forming, never":             {never, []*Candidate{single(luks.StateForming)}, `refuse: its formatting was interrupted, and format is "never"`},
		"ours, state of the future":        {onBlank, []*Candidate{single("mirrored")}, `refuse: /dev/nvme0n1 is in unknown state "mirrored"`},
		"ours, ready, ephemeral":           {anew, []*Candidate{single(luks.StateReady)}, "refuse: /dev/nvme0n1 holds a LUKS volume that is not ephemeral"},
		"ephemeral again":                  {anew, []*Candidate{ephemeral(single(luks.StateReady))}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"ephemeral before":                 {onBlank, []*Candidate{ephemeral(single(luks.StateReady))}, "refuse: /dev/nvme0n1 was an ephemeral volume: its key was thrown away"},

		"fewer than count, blank":     {counted(2), []*Candidate{blankDisk(0)}, "refuse: 1 of 2 disks are here"},
		"fewer than count, ephemeral": {config.Volume{Format: config.FormatEphemeral, Count: 3, Key: anew.Key}, []*Candidate{blankDisk(0)}, "refuse: 1 of 3 disks are here"},
		"as many as count":            {counted(1), []*Candidate{blankDisk(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},

		"more than count, blank":     {counted(1), []*Candidate{blankDisk(0), blankDisk(1)}, "refuse: 2 disks are here, but count is 1"},
		"more than count, one ready": {counted(1), []*Candidate{single(luks.StateReady), blankDisk(1)}, "refuse: 2 disks are here, but count is 1"},

		"begun anew, ephemeral": {anew, []*Candidate{begunAnew(0)}, "format data[nvme0=data@0] set new-1/1 mkfs mark"},
		"begun anew, blank":     {onBlank, []*Candidate{begunAnew(0)}, "refuse: /dev/nvme0n1 was being made an ephemeral volume anew"},
		"begun anew, never":     {never, []*Candidate{begunAnew(0)}, "refuse: /dev/nvme0n1 was being made an ephemeral volume anew"},
		"begun anew, and ready": {anew, []*Candidate{begunAnew(0), ephemeral(stripe(1, 1, luks.StateReady))}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},

		"a clone":              {onBlank, []*Candidate{single(luks.StateReady), clone(1)}, "refuse: they are copies of one LUKS volume, with UUID uuid-0"},
		"a clone, separate":    {separate, []*Candidate{single(luks.StateReady), clone(1)}, "refuse: they are copies of one LUKS volume, with UUID uuid-0"},
		"a clone, anyone's":    {config.Volume{Key: config.Key{Source: source.MustParse("s3://bucket/key")}}, []*Candidate{luksDisk(0), clone(1)}, "refuse: they are copies of one LUKS volume, with UUID uuid-0"},
		"a clone, and a third": {separate, []*Candidate{luksDisk(2), luksDisk(0), clone(1)}, "refuse: they are copies of one LUKS volume, with UUID uuid-0"},

		"stripe, blank": {onBlank, []*Candidate{blankDisk(0), blankDisk(1)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},
		"stripe, ready": {onBlank, []*Candidate{stripe(0, 0, luks.StateReady), stripe(1, 1, luks.StateReady)}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2"},
		"stripe, reordered": {onBlank, []*Candidate{stripe(0, 1, luks.StateReady), stripe(1, 0, luks.StateReady)},
			"open data[nvme1=data_0@0 nvme0=data_1@1] set S/2"},
		"stripe, half ready":  {onBlank, []*Candidate{stripe(0, 0, luks.StateReady), stripe(1, 1, luks.StateFormed)}, "open data[nvme0=data_0@0 nvme1=data_1@1] set S/2 mark"},
		"stripe, half formed": {onBlank, []*Candidate{stripe(0, 0, luks.StateForming), stripe(1, 1, luks.StateFormed)}, "finish formatting data[nvme0=data_0@0 nvme1=data_1@1] set S/2 mkfs mark"},
		"stripe, forming":     {onBlank, []*Candidate{stripe(0, 0, luks.StateForming), stripe(1, 1, luks.StateForming)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},
		"stripe, half begun":  {onBlank, []*Candidate{stripe(0, 0, luks.StateForming), blankDisk(1)}, "format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},
		"stripe, begun twice": {onBlank, []*Candidate{stripe(0, 0, luks.StateForming), member(1, "T", 1, 2, Chunk, luks.StateForming)},
			"format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},
		"stripe, half begun, never": {never, []*Candidate{stripe(0, 0, luks.StateForming), blankDisk(1)}, `refuse: its formatting was interrupted, and format is "never"`},
		"stripe, member blank":      {onBlank, []*Candidate{stripe(0, 0, luks.StateReady), blankDisk(1)}, "refuse: 1 of 2 disks of the stripe are here"},
		"stripe, member missing":    {onBlank, []*Candidate{stripe(0, 0, luks.StateReady)}, "refuse: 1 of 2 disks of the stripe are here"},
		"stripe, one too many":      {onBlank, []*Candidate{stripe(0, 0, luks.StateReady), stripe(1, 1, luks.StateReady), blankDisk(2)}, "refuse: a stripe of 2 disks, but 3 disks were found"},
		"stripe, two sets": {onBlank, []*Candidate{stripe(0, 0, luks.StateReady), member(1, "T", 1, 2, Chunk, luks.StateReady)},
			"refuse: the disks belong to different sets (S and T)"},
		"stripe, a copy":           {onBlank, []*Candidate{stripe(0, 1, luks.StateReady), stripe(1, 1, luks.StateReady)}, "refuse: /dev/nvme0n1 and /dev/nvme1n1 both say they are disk 1 of set S"},
		"stripe, other chunk":      {onBlank, []*Candidate{member(0, "S", 0, 2, 4096, luks.StateReady), member(1, "S", 1, 2, 4096, luks.StateReady)}, "refuse: striped with a chunk of 4096 bytes, want 262144"},
		"stripe, anyone's LUKS":    {onBlank, []*Candidate{luksDisk(0), luksDisk(1)}, "refuse: 2 of 2 disks hold LUKS volumes that are not members of a stripe made by unlock"},
		"stripe, one foreign":      {onBlank, []*Candidate{blankDisk(0), foreignDisk(1)}, "refuse: it holds ext4 file system"},
		"stripe as separate":       {separate, []*Candidate{stripe(0, 0, luks.StateReady)}, "refuse: 1 of 2 disks of the stripe are here"},
		"separate disks as stripe": {onBlank, []*Candidate{member(0, "S", 0, 2, 0, luks.StateReady), member(1, "S", 1, 2, 0, luks.StateReady)}, "refuse: the disks were not formatted with this layout"},
		"stripe, ephemeral again": {anew, []*Candidate{ephemeral(stripe(0, 0, luks.StateReady)), blankDisk(1)},
			"format data[nvme0=data_0@0 nvme1=data_1@1] set new-1/2 mkfs mark"},

		"separate, blank": {separate, []*Candidate{blankDisk(0), blankDisk(1)},
			"format data0[nvme0=data0@0] set new-2/2 mark; format data1[nvme1=data1@1] set new-2/2 mark"},
		"separate, reordered": {separate, []*Candidate{member(0, "S", 1, 2, 0, luks.StateReady), member(1, "S", 0, 2, 0, luks.StateReady)},
			"open data1[nvme0=data1@1] set S/2; open data0[nvme1=data0@0] set S/2"},
		"separate, one new": {separate, []*Candidate{blankDisk(0), member(1, "S", 0, 2, 0, luks.StateReady)},
			"format data1[nvme0=data1@1] set new-2/2 mark; open data0[nvme1=data0@0] set S/2"},
		"separate, one foreign": {separate, []*Candidate{blankDisk(0), foreignDisk(1)},
			"format data0[nvme0=data0@0] set new-2/2 mark; refuse: it holds ext4 file system"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := summary(Make(situation(row.volume, row.disks...))); got != row.want {
				t.Errorf("Make =\n%s, want\n%s", got, row.want)
			}
		})
	}
}

func TestPlanActive(t *testing.T) {
	s := situation(config.Volume{}, member(0, "uuid-0", 0, 1, 0, luks.StateReady))
	s.Active = map[string]string{"data": "CRYPT-LUKS2-uuid0-data"}
	if got := summary(Make(s)); got != "already open data[nvme0=data@0] set /1" {
		t.Errorf("Make of an open volume = %s", got)
	}
	s.Active["data"] = "LVM-something"
	if got := summary(Make(s)); !strings.Contains(got, "is something else already (LVM-something)") {
		t.Errorf("Make where the name is taken = %s", got)
	}
}

// TestAbsent: a required volume without a disk is refused, unless it may be absent; and
// that one is not waited for.
func TestAbsent(t *testing.T) {
	store, path := config.Selector{Kind: config.SelectInstanceStore}, config.Selector{Kind: config.SelectPath, Value: "/dev/nvme9n1"}
	for name, row := range map[string]struct {
		volume  config.Volume
		want    string
		awaited bool
	}{
		"instance store":             {config.Volume{Device: store, Required: true}, "refuse: no device instance-store; absent data", false},
		"instance store, counted":    {config.Volume{Device: store, Required: true, Count: 2}, "refuse: no device instance-store; absent data", true},
		"instance store, may be":     {config.Volume{Device: store, Required: true, MayBeAbsent: true}, "absent data", false},
		"counted, may be":            {config.Volume{Device: store, Required: true, Count: 2, MayBeAbsent: true}, "absent data", false},
		"instance store, optional":   {config.Volume{Device: store}, "absent data", false},
		"a named device":             {config.Volume{Device: path, Required: true}, "refuse: no device /dev/nvme9n1; absent data", true},
		"a named device, may be":     {config.Volume{Device: path, Required: true, MayBeAbsent: true}, "absent data", false},
		"a file of the root, so far": {config.Volume{Device: config.Selector{Kind: config.SelectFile, Value: "/x"}, Required: true}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			row.volume.Name = "data"
			s := situation(row.volume)
			s.Config.Volumes[0].Device = row.volume.Device
			s.Config.Volumes[0].Required = row.volume.Required
			p := Make(s)
			p.RefuseAbsent()
			if got := summary(p); got != row.want {
				t.Errorf("plan %q, want %q", got, row.want)
			}
			if got := len(Awaited(s.Config, nil, true)) > 0; got != row.awaited {
				t.Errorf("awaited: %v, want %v", got, row.awaited)
			}
		})
	}
}

// TestAwaited: what may be copied, or be one too many, is waited for until the kernel
// has shown all its disks; what names a place is not.
func TestAwaited(t *testing.T) {
	instanceStore := config.Selector{Kind: config.SelectInstanceStore}
	for name, row := range map[string]struct {
		device  config.Selector
		count   int
		disks   []*Candidate
		settled bool
		waits   bool
	}{
		"all, not settled":      {instanceStore, 0, []*Candidate{blankDisk(0)}, false, true},
		"all, settled":          {instanceStore, 0, []*Candidate{blankDisk(0)}, true, false},
		"count, fewer":          {instanceStore, 2, []*Candidate{blankDisk(0)}, true, true},
		"count, not settled":    {instanceStore, 1, []*Candidate{blankDisk(0)}, false, true},
		"count, settled":        {instanceStore, 1, []*Candidate{blankDisk(0)}, true, false},
		"UUID, not settled":     {config.Selector{Kind: config.SelectUUID, Value: "uuid-0"}, 0, []*Candidate{luksDisk(0)}, false, true},
		"UUID, settled":         {config.Selector{Kind: config.SelectUUID, Value: "uuid-0"}, 0, []*Candidate{luksDisk(0)}, true, false},
		"LABEL, not settled":    {config.Selector{Kind: config.SelectLabel, Value: "data"}, 0, []*Candidate{luksDisk(0)}, false, true},
		"path, not settled":     {config.Selector{Kind: config.SelectPath, Value: "/dev/nvme0n1"}, 0, []*Candidate{luksDisk(0)}, false, false},
		"serial, not settled":   {config.Selector{Kind: config.SelectSerial, Value: disk(0).Serial}, 0, []*Candidate{luksDisk(0)}, false, false},
		"path, absent, settled": {config.Selector{Kind: config.SelectPath, Value: "/dev/nvme1n1"}, 0, []*Candidate{luksDisk(0)}, true, true},
		"number N, not settled": {config.Selector{Kind: config.SelectInstanceStore, Value: "0"}, 0, []*Candidate{blankDisk(0)}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := config.Volume{Name: "data", Device: row.device, Count: row.count, Required: true}
			got := Awaited(&config.Config{Volumes: []config.Volume{v}}, row.disks, row.settled)
			if waits := len(got) > 0; waits != row.waits {
				t.Errorf("Awaited = %v, want %v", waits, row.waits)
			}
		})
	}
}

func TestPlanSharedDisk(t *testing.T) {
	s := situation(config.Volume{Format: config.FormatBlank}, blankDisk(0))
	s.Config.Volumes = append(s.Config.Volumes, s.Config.Volumes[0])
	s.Config.Volumes[1].Name = "again"
	if got := summary(Make(s)); !strings.HasSuffix(got, `refuse: volume "data" has it already`) {
		t.Errorf("Make with one disk for two volumes = %s", got)
	}
}

func TestSelect(t *testing.T) {
	store := func(n int, attach string) *Candidate {
		return with(blankDisk(n), func(c *Candidate) { c.Disk.Attach = attach })
	}
	ebs := with(blankDisk(7), func(c *Candidate) {
		c.Disk.Kind, c.Disk.Attach, c.Disk.Serial, c.Disk.Model = block.KindEBS, "sdf", "vol0123", "Amazon Elastic Block Store"
	})
	part := &Candidate{Disk: block.Disk{Name: "nvme7n1p1", Path: "/dev/nvme7n1p1", Parent: "nvme7n1", PartUUID: "ab-cd", Kind: block.KindEBS, Attach: "sdf", Serial: "vol0123"}}
	header := luksDisk(9)
	lv := &Candidate{Disk: block.Disk{Name: "dm-0", Path: "/dev/dm-0", DM: "my--vg-data"}}
	all := []*Candidate{lv, store(10, "ephemeral0"), store(2, "ephemeral1"), ebs, part, header}
	plain := []*Candidate{blankDisk(2), blankDisk(10)}
	for name, row := range map[string]struct {
		kind  config.SelectorKind
		value string
		all   []*Candidate
		want  string
	}{
		"by attachment":            {config.SelectInstanceStore, "", all, "nvme10n1 nvme2n1 nvme9n1"},
		"in order":                 {config.SelectInstanceStore, "", plain, "nvme2n1 nvme10n1"},
		"number, by attachment":    {config.SelectInstanceStore, "1", all, "nvme2n1"},
		"number, by order":         {config.SelectInstanceStore, "1", plain, "nvme10n1"},
		"number that is not there": {config.SelectInstanceStore, "5", all, ""},
		"EBS":                      {config.SelectEBS, "sdf", all, "nvme7n1"},
		"EBS, Xen's name":          {config.SelectEBS, "xvdf", all, "nvme7n1"},
		"EBS, other":               {config.SelectEBS, "sdg", all, ""},
		"path":                     {config.SelectPath, "/dev/nvme7n1p1", all, "nvme7n1p1"},
		"mapping":                  {config.SelectPath, "/dev/mapper/my--vg-data", all, "dm-0"},
		"logical volume":           {config.SelectPath, "/dev/my-vg/data", all, "dm-0"},
		"link by id":               {config.SelectPath, "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123", all, "nvme7n1"},
		"UUID":                     {config.SelectUUID, "UUID-9", all, "nvme9n1"},
		"label":                    {config.SelectLabel, "data", all, "nvme9n1"},
		"PARTUUID":                 {config.SelectPartUUID, "AB-CD", all, "nvme7n1p1"},
		"serial":                   {config.SelectSerial, "vol0123", all, "nvme7n1"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Select(&config.Volume{Device: config.Selector{Kind: row.kind, Value: row.value}}, row.all) {
				got = append(got, c.Disk.Name)
			}
			if s := strings.Join(got, " "); s != row.want {
				t.Errorf("Select = %q, want %q", s, row.want)
			}
		})
	}
}
