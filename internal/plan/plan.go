// Package plan decides what is done with each disk: Make turns the configuration and
// what is on the disks into steps, or refusals that say why not. It is pure: it opens,
// reads and writes nothing, and equal situations give equal plans.
//
// For each device-mapper device, made of one disk or of a stripe of several, the
// decision table is
//
//	on the disks                 never    blank             ephemeral
//	LUKS                         open     open              format if its token says it is ephemeral, else refuse
//	blank                        refuse   format            format
//	anything else, unreadable    refuse   refuse            refuse
//
// and for what unlock itself left unfinished
//
//	some "forming", rest blank   refuse   format again
//	all there, none "ready"      refuse   open, make the file system again
//	all there, some "ready"      open     open
//
// The disks of a mirror need not all be there. Those that are in step open it, the others
// are left alone, whatever is on them; which are in step, and that none has what the others
// lack, its tokens say (Judge). Until it is ready for the first time all must be there.
//
// A volume may be divided into shares. Into which, its tokens say from the beginning, so
// that a configuration that was changed since is refused, and a formatting that was
// interrupted is finished for all of them or begun again.
package plan

import (
	"fmt"
	"slices"
	"strings"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/luks"
)

// Chunk is how much of a stripe lies on one disk before the next, in bytes.
const Chunk = 256 << 10

// LUKS is what Make needs to know of a valid header.
type LUKS struct {
	Version int
	UUID    string
	Set     *luks.SetToken // nil: not made by unlock
	KMS     *luks.KMSToken // nil: no key in the header
	Header  *luks.Header
}

// Candidate is a disk and what is on it.
type Candidate struct {
	Disk    block.Disk
	Content block.Content
	LUKS    *LUKS  // nil unless Content is LUKS and the header is valid
	Err     error  // why the header is not valid
	File    string // below the new root, if the disk is a loop device over it
}

// Over is what formatting the disk replaces: an ephemeral volume, also one of which an
// interrupted formatting has left no header, or nothing.
func (c *Candidate) Over() luks.Over {
	if c.LUKS != nil && c.LUKS.Set != nil && c.LUKS.Set.Ephemeral {
		return luks.OverEphemeral
	}
	return c.Content.Over
}

// Situation is all that Make looks at.
type Situation struct {
	Config     *config.Config
	Candidates []*Candidate
	Before     []config.Volume   // that are not planned for, but have the disks that they select
	Active     map[string]string // device-mapper name → UUID of what is mapped already
	NewUUID    func() string     // a random UUID; not called unless something is formatted
	Shares     bool              // whatever shares there are is taken, and they are named VOLUME-SHARE
}

// Member is a disk of a step.
type Member struct {
	*Candidate
	Index   int    // place in the set
	UUID    string // of the header that is there or will be written
	Mapping string // device-mapper name of its decrypted payload
}

// Step makes one /dev/mapper device out of one disk, or a stripe out of several.
type Step struct {
	Volume  *config.Volume
	Name    string // /dev/mapper/NAME
	Members []Member
	Set     string // UUID of the set of disks that share a key
	Count   int    // of disks in that set
	Format  bool   // write headers first
	Mkfs    bool   // make the file system after mapping
	Mark    bool   // the members' tokens do not all say "ready" yet
	Active  bool   // mapped already: nothing to do
	Unready bool   // none of its members was ready: nothing of anybody's is on it
	Shares  []Share
	Chunk   int // bytes of it on a disk before the next; 0: not striped

	// Of a mirror, whose Members are those that are in step.
	Copies int           // of all data; 0: it is no mirror
	Size   int64         // bytes of data on each member
	Mirror luks.SetToken // what its members have in their tokens, but for Index and State
	Tell   bool          // they do not all have that yet, and are to before it is mapped
	Out    []*Candidate  // disks that were selected and are not in step
	Lacks  int           // members that are not in step, of one that is open: the kernel knows
}

// Share is a part of what a step makes, and a device of its own.
type Share struct {
	Volume *config.Volume
	luks.Share
}

// Joined reports whether the step joins its members, to a stripe or a mirror.
func (s *Step) Joined() bool { return len(s.Members) > 1 || s.Copies > 0 }

// Missing returns how many members of a mirror are not in step.
func (s *Step) Missing() int {
	switch {
	case s.Copies == 0:
		return 0
	case s.Active:
		return s.Lacks
	}
	return s.Count - len(s.Members)
}

// Actions that make a file system.
const (
	ActionFormat = "format"
	ActionFinish = "finish formatting"
)

// Action says in a word or two what the step does.
func (s *Step) Action() string {
	switch {
	case s.Active:
		return "already open"
	case s.Format:
		return ActionFormat
	case s.Mkfs:
		return ActionFinish
	}
	return "open"
}

// DiskList names the disks of a step for the log: "nvme1n1 (blank)".
func (s *Step) DiskList() string {
	var list []string
	for _, m := range s.Members {
		list = append(list, fmt.Sprintf("%s (%s)", m.Disk.Name, m.Content.What))
	}
	return strings.Join(list, ", ")
}

// Refusal is a disk, or several, that a volume must not have. It is an error with
// advice (package hint).
type Refusal struct {
	Volume  *config.Volume
	Devices []string // paths; empty: it is about the volume as a whole
	Reason  string
	Hint    string
}

func (r *Refusal) Error() string {
	if len(r.Devices) == 0 {
		return fmt.Sprintf("volume %q: %s", r.Volume.Name, r.Reason)
	}
	return fmt.Sprintf("refusing %s for volume %q: %s", strings.Join(r.Devices, ", "), r.Volume.Name, r.Reason)
}

// Advice is what the operator can do about it.
func (r *Refusal) Advice() string { return r.Hint }

// Plan is what is to be done.
type Plan struct {
	Steps    []Step
	Refusals []*Refusal
	Absent   []*config.Volume // no disk of theirs is there
}

// Make decides what to do with each volume.
func Make(s Situation) *Plan {
	p := &Plan{}
	claimed := map[string]*config.Volume{}
	for i := range s.Before {
		for _, m := range Select(&s.Before[i], s.Candidates) {
			claimed[m.Disk.Path] = &s.Before[i]
		}
	}
	for i := range s.Config.Volumes {
		v := &s.Config.Volumes[i]
		if v.Device.Kind == config.SelectShare { // planned for with its whole
			if slices.ContainsFunc(p.Absent, func(w *config.Volume) bool { return w.Name == v.Device.Value }) {
				p.Absent = append(p.Absent, v)
			}
			continue
		}
		members := Select(v, s.Candidates)
		if len(members) == 0 {
			p.Absent = append(p.Absent, v)
			continue
		}
		if len(members) < v.Count && mirrored(members) == nil { // the time to wait for the others is over
			p.Refusals = append(p.Refusals, &Refusal{v, paths(members), fmt.Sprintf("%d of %d disks are here", len(members), v.Count),
				"attach the missing disks, or correct count"})
			continue
		}
		if v.Count > 0 && len(members) > v.Count {
			p.Refusals = append(p.Refusals, &Refusal{v, paths(members), fmt.Sprintf("%d disks are here, but count is %d", len(members), v.Count),
				"correct count, or name the disks one by one, for example by instance-store:N or serial="})
			continue
		}
		if r := clones(v, members); r != nil {
			p.Refusals = append(p.Refusals, r)
			continue
		}
		if r := claim(v, members, claimed); r != nil {
			p.Refusals = append(p.Refusals, r)
			continue
		}
		p.volume(s, v, members)
	}
	return p
}

// claim refuses a disk that another volume has already.
func claim(v *config.Volume, members []*Candidate, claimed map[string]*config.Volume) *Refusal {
	for _, m := range members {
		if other := claimed[m.Disk.Path]; other != nil {
			return &Refusal{v, []string{m.Disk.Path}, fmt.Sprintf("volume %q has it already", other.Name),
				"let the device selectors of the two volumes name different disks"}
		}
		claimed[m.Disk.Path] = v
	}
	return nil
}

// clones refuses disks that hold one and the same LUKS volume: which of them is meant,
// nobody can tell.
func clones(v *config.Volume, members []*Candidate) *Refusal {
	seen := map[string]*Candidate{}
	for _, m := range members {
		if m.LUKS == nil {
			continue
		}
		uuid := strings.ToLower(m.LUKS.UUID)
		if first := seen[uuid]; first != nil {
			return &Refusal{v, paths([]*Candidate{first, m}), fmt.Sprintf("they are copies of one LUKS volume, with UUID %s", m.LUKS.UUID),
				"a snapshot may have been attached beside its volume: detach one of them, or name the other by serial= or ebs:/dev/sdf"}
		}
		seen[uuid] = m
	}
	return nil
}

// volume plans one step for a single disk or a stripe, or one for each disk.
func (p *Plan) volume(s Situation, v *config.Volume, members []*Candidate) {
	if v.Layout != config.LayoutSeparate {
		step, refusal := decide(s, v, v.Name, members)
		if refusal == nil {
			refusal = divide(s, &step)
		}
		p.add(step, refusal)
		return
	}
	set, indexes := "", separateIndexes(members)
	for i, m := range members {
		step, refusal := decide(s, v, fmt.Sprintf("%s%d", v.Name, indexes[i]), []*Candidate{m})
		if refusal == nil && step.Format { // one data key for all that are formatted in this boot
			if set == "" {
				set = s.NewUUID()
			}
			step.Set, step.Count, step.Members[0].Index = set, len(members), indexes[i]
		}
		p.add(step, refusal)
	}
}

func (p *Plan) add(step Step, refusal *Refusal) {
	if refusal != nil {
		p.Refusals = append(p.Refusals, refusal)
		return
	}
	p.Steps = append(p.Steps, step)
}

// separateIndexes numbers separate disks: as their tokens say, so that NAME0
// stays NAME0 whatever order the disks appear in, and the others by the numbers
// that are left.
func separateIndexes(members []*Candidate) []int {
	indexes := make([]int, len(members))
	taken := map[int]bool{}
	for i, m := range members {
		indexes[i] = -1
		if m.LUKS == nil || m.LUKS.Set == nil || m.LUKS.Set.Chunk != 0 {
			continue
		}
		if n := m.LUKS.Set.Index; !taken[n] {
			indexes[i], taken[n] = n, true
		}
	}
	next := 0
	for i := range members {
		if indexes[i] >= 0 {
			continue
		}
		for taken[next] {
			next++
		}
		indexes[i], taken[next] = next, true
	}
	return indexes
}

// NeedsKey reports whether a step needs a key that AWS has to give or decrypt.
func (p *Plan) NeedsKey() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool {
		return !s.Active && !s.Volume.Key.Source.Random()
	})
}
