package plan

import (
	"cmp"
	"fmt"
	"strings"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/luks"
)

// decide is the decision table of the package comment.
func decide(s Situation, v *config.Volume, name string, members []*Candidate) (Step, *Refusal) {
	refuse := func(hint, format string, args ...any) (Step, *Refusal) {
		return Step{}, &Refusal{v, paths(members), fmt.Sprintf(format, args...), hint}
	}
	step := Step{Volume: v, Name: name, Count: len(members)}
	for i, c := range members {
		m := Member{Candidate: c, Index: i, Mapping: name}
		if len(members) > 1 {
			m.Mapping = fmt.Sprintf("%s_%d", name, i)
		}
		if c.LUKS != nil {
			m.UUID = c.LUKS.UUID
		}
		step.Members = append(step.Members, m)
	}
	first := step.Regard(members)
	if active, uuid := s.Active[name], dmUUID(&step); active != "" {
		if active != uuid {
			return refuse("choose another name, or close the mapping", "/dev/mapper/%s is something else already (%s)", name, active)
		}
		step.Active = true
		return step, nil
	}
	if first != nil && v.Format != config.FormatEphemeral {
		return regroup(s, step, first)
	}
	if r := unusable(v, members); r != nil {
		return Step{}, r
	}

	blank, foreign := 0, 0 // blank: or nothing but a formatting that was begun; foreign: LUKS, but not made by unlock
	for _, m := range members {
		switch {
		case m.LUKS == nil:
			blank++
		case m.LUKS.Set == nil:
			foreign++
		}
	}
	for _, m := range members {
		if m.LUKS == nil && m.Over() == luks.OverEphemeral && v.Format != config.FormatEphemeral {
			return refuse(`set format = "ephemeral" to have it made anew`, "%s was being made an ephemeral volume anew", m.Disk.Path)
		}
	}
	switch {
	case v.Format == config.FormatEphemeral:
		for _, m := range members {
			if m.LUKS != nil && (m.LUKS.Set == nil || !m.LUKS.Set.Ephemeral) {
				return refuse(eraseHint(m.Disk), "%s holds a LUKS volume that is not ephemeral", m.Disk.Path)
			}
		}
		return format(s, step)
	case blank == len(members):
		if v.Format == config.FormatNever && members[0].Content.Kind == block.Begun {
			return refuse(`set format = "blank" to let unlock begin again`, "its formatting was interrupted, and format is \"never\"")
		}
		if v.Format == config.FormatNever {
			return refuse(`set format = "blank" if unlock may format it`, "blank, and format is \"never\"")
		}
		return format(s, step)
	case foreign > 0 && len(members) > 1:
		return refuse(`open each by itself with layout = "separate", or erase the disks that do not belong`,
			"%d of %d disks hold LUKS volumes that are not members of a stripe made by unlock", foreign, len(members))
	case foreign == 1:
		step.Set = members[0].LUKS.UUID
		return openWithKey(step)
	}
	return known(s, step, blank)
}

// known decides on disks that all carry set tokens, but for some blank ones.
func known(s Situation, step Step, blank int) (Step, *Refusal) {
	refuse := func(hint, format string, args ...any) (Step, *Refusal) {
		return Step{}, &Refusal{step.Volume, step.paths(), fmt.Sprintf(format, args...), hint}
	}
	var first *luks.SetToken
	var durable, ready int
	for _, m := range step.Members {
		if m.LUKS == nil {
			continue
		}
		t := m.LUKS.Set
		switch {
		case t.Ephemeral:
			return refuse(`set format = "ephemeral" to have it made anew`, "%s was an ephemeral volume: its key was thrown away", m.Disk.Path)
		case t.State == luks.StateReady:
			ready++
			durable++
		case t.State == luks.StateFormed:
			durable++
		case t.State != luks.StateForming:
			return refuse("use the version of unlock that wrote it", "%s is in unknown state %q", m.Disk.Path, t.State)
		}
		if first == nil {
			first = t
		}
	}
	if durable == 0 { // formatting was interrupted, perhaps twice, before any data could be written
		if step.Volume.Format == config.FormatNever {
			return refuse(`set format = "blank" to let unlock begin again`, "its formatting was interrupted, and format is \"never\"")
		}
		return format(s, step)
	}
	seen := map[int]string{}
	for i, m := range step.Members {
		if m.LUKS == nil {
			continue
		}
		t := m.LUKS.Set
		switch {
		case t.UUID != first.UUID || t.Count != first.Count || t.Chunk != first.Chunk || t.Shares != first.Shares:
			return refuse("select the disks of one set, for example by serial=", "the disks belong to different sets (%s and %s)", first.UUID, t.UUID)
		case t.Index < 0 || t.Index >= t.Count:
			return refuse("", "%s says it is disk %d of %d", m.Disk.Path, t.Index, t.Count)
		case seen[t.Index] != "":
			return refuse("detach the copy", "%s and %s both say they are disk %d of set %s", seen[t.Index], m.Disk.Path, t.Index, t.UUID)
		}
		seen[t.Index] = m.Disk.Path
		step.Members[i].Index = t.Index
	}
	if _, chunk, _ := copies(step.Volume.Layout, first.Count); !s.Shares && chunk != first.Chunk && first.Copies > 0 {
		return refuse("use the layout with which the disks were formatted", "the disks were not formatted with this layout")
	}
	striped := first.Chunk != 0 || first.Copies > 0
	if first.Chunk != 0 && first.Chunk != Chunk {
		return refuse("use the version of unlock that wrote it", "striped with a chunk of %d bytes, want %d", first.Chunk, Chunk)
	}
	switch {
	case striped && len(seen) < first.Count:
		return refuse("attach the missing disks; a stripe is lost with any of its disks", "%d of %d disks of the stripe are here", len(seen), first.Count)
	case striped && (blank > 0 || len(step.Members) != first.Count):
		return refuse("detach the further disks, or select those of the stripe", "a stripe of %d disks, but %d disks were found", first.Count, len(step.Members))
	case striped && len(step.Members) == 1, !striped && len(step.Members) > 1:
		return refuse("use the layout with which the disks were formatted", "the disks were not formatted with this layout")
	}
	if striped {
		ordered := make([]Member, first.Count)
		for _, m := range step.Members {
			m.Mapping = fmt.Sprintf("%s_%d", step.Name, m.Index)
			ordered[m.Index] = m
		}
		step.Members = ordered
	}
	step.take(first)
	step.Unready = ready == 0
	step.Mkfs = ready == 0 && step.Volume.Filesystem != ""
	step.Mark = ready < len(step.Members)
	if ready == 0 && step.Volume.Format == config.FormatNever {
		return refuse(`set format = "blank" to let unlock finish`, "its formatting was interrupted, and format is \"never\"")
	}
	return openWithKey(step)
}

// unusable refuses what is neither blank nor a LUKS volume free to be opened.
func unusable(v *config.Volume, members []*Candidate) *Refusal {
	for _, m := range members {
		refuse := func(hint, format string, args ...any) *Refusal {
			return &Refusal{v, []string{m.Disk.Path}, fmt.Sprintf(format, args...), hint}
		}
		switch {
		case m.Content.Kind == block.Unreadable:
			return refuse(hint.DiskFails, "cannot be read: %s", m.Content.What)
		case m.Content.Kind == block.Foreign:
			return refuse(eraseHint(m.Disk), "it holds %s", m.Content.What)
		case m.Content.Kind == block.LUKS && m.LUKS == nil:
			return refuse(cmp.Or(hint.Of(m.Err), "cryptsetup luksDump shows what is there; nothing was changed"), "%v", m.Err)
		case m.Disk.InUse:
			return refuse("lsblk shows by what", "in use: mounted, partitioned or mapped by something else")
		case m.Disk.Size < luks.MinSize && m.LUKS == nil:
			return refuse("use a larger disk", "blank, but its %d bytes are too few for a LUKS header", m.Disk.Size)
		case m.Disk.ReadOnly && m.LUKS == nil:
			return refuse("attach the disk so that it can be written to", "blank, but read-only")
		}
	}
	return nil
}

// openWithKey checks that a key in the header is there if one is needed.
func openWithKey(step Step) (Step, *Refusal) {
	if step.Volume.Key.Source.InHeader() && step.Members[0].LUKS.KMS == nil {
		return Step{}, &Refusal{step.Volume, step.paths(), "the key source is \"header\", but the LUKS header holds no aws-kms token",
			"add one with unlockctl enroll, or configure the source that its passphrase came from"}
	}
	return step, nil
}

// format completes a step that writes new headers.
func format(s Situation, step Step) (Step, *Refusal) {
	var reason string
	if step.Copies, step.Chunk, reason = copies(step.Volume.Layout, len(step.Members)); reason != "" {
		return Step{}, &Refusal{step.Volume, step.paths(), reason, "attach the missing disks, or set another layout"}
	}
	if step.Copies == 0 && len(step.Members) > 1 {
		step.Chunk = Chunk
	}
	if step.Copies > 0 {
		least := step.Members[0].Disk.Size
		for _, m := range step.Members {
			least = min(least, m.Disk.Size)
		}
		if step.Size = (least - luks.DataOffset - MetaSize) / Chunk * Chunk; step.Size < Chunk {
			return Step{}, &Refusal{step.Volume, step.paths(), fmt.Sprintf("a disk of %d bytes is too small for a mirror", least), "use larger disks"}
		}
	}
	step.Format, step.Mark, step.Unready = true, true, true
	step.Mkfs = step.Volume.Filesystem != ""
	step.Set = s.NewUUID()
	step.Mirror.Epoch = step.Set
	for i := range step.Members {
		step.Members[i].Index = i
		step.Members[i].UUID = step.Set
		if len(step.Members) > 1 {
			step.Members[i].UUID = s.NewUUID()
		}
	}
	return step, nil
}

func eraseHint(d block.Disk) string {
	return fmt.Sprintf("only blank disks are formatted; to give this one up, with all its data: blkdiscard --zeroout %s", d.Path)
}

func paths(members []*Candidate) []string {
	var list []string
	for _, m := range members {
		list = append(list, m.Disk.Path)
	}
	return list
}

func (s *Step) paths() []string {
	var list []string
	for _, m := range s.Members {
		list = append(list, m.Disk.Path)
	}
	return list
}

// dmUUID is the device-mapper UUID that the step's device has if it is mapped
// already; "" if there is no header to tell.
func dmUUID(s *Step) string {
	if s.Copies > 0 {
		return MirrorUUID(s.Set)
	}
	if s.Joined() {
		if set := s.Members[0].set(); set != nil {
			return StripeUUID(set.UUID)
		}
		return ""
	}
	m := s.Members[0]
	if m.LUKS == nil {
		return ""
	}
	return CryptUUID(fmt.Sprintf("LUKS%d", m.LUKS.Version), m.LUKS.UUID, s.Name)
}

// StripeUUID is the device-mapper UUID of a stripe, which cryptsetup does not know.
func StripeUUID(set string) string { return "UNLOCK-STRIPE-" + strings.ReplaceAll(set, "-", "") }

// MirrorUUID is that of a mirror, and PartUUID that of a part of its member's payload.
func MirrorUUID(set string) string { return "UNLOCK-MIRROR-" + strings.ReplaceAll(set, "-", "") }

func PartUUID(set, name string) string {
	return "UNLOCK-PART-" + strings.ReplaceAll(set, "-", "") + "-" + name
}

// CryptUUID is the device-mapper UUID of a mapping as cryptsetup builds it; kind is
// LUKS1 or LUKS2, uuid the header's.
func CryptUUID(kind, uuid, name string) string {
	return fmt.Sprintf("CRYPT-%s-%s-%s", kind, strings.ReplaceAll(uuid, "-", ""), name)
}

func (m *Member) set() *luks.SetToken {
	if m.LUKS == nil {
		return nil
	}
	return m.LUKS.Set
}
