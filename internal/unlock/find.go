package unlock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/status"
)

// Search finds the disks of a configuration and plans for them.
type Search struct {
	Config *config.Config
	Before []config.Volume // as in plan.Situation
	// Watch lists and awaits disks as block.Finder does.
	Watch  func(ctx context.Context, look func(disks []block.Disk, settled bool) (done bool)) error
	Limits luks.Limits
	Rec    *status.Recorder  // nil: nobody watches over disks that do not answer
	Active map[string]string // as in plan.Situation
	// Mapping asks IMDS which disk is which (block-device-mapping), where the disks
	// themselves do not say it: on Xen. It is called at most once.
	Mapping func(ctx context.Context) (map[string]string, error)
	// Promising, if not nil, is called once while disks are still awaited, when
	// those found so far will need a key and none of them is to be refused: the
	// network may start.
	Promising func()
	// Waiting, if not nil, is called once if the kernel has shown all its disks, with
	// the volumes that still lack some.
	Waiting func(awaited []*config.Volume)

	seen    map[string]*plan.Candidate
	mapping map[string]string
}

// Run waits until every volume has its disks, or none of those missing can be
// expected any more, or ctx ends, and returns the plan. A required device that
// did not appear in time is a refusal in it.
func (s *Search) Run(ctx context.Context) (*plan.Plan, error) {
	s.seen = map[string]*plan.Candidate{}
	var found []*plan.Candidate
	var asked error
	err := s.Watch(ctx, func(disks []block.Disk, settled bool) bool {
		found = s.candidates(disks)
		if settled && s.mapping == nil && plan.Ambiguous(s.Config, disks, found) {
			if s.mapping, asked = s.Mapping(ctx); asked != nil {
				return true
			}
			found = s.candidates(disks)
		}
		awaited := plan.Awaited(s.Config, found, settled)
		if len(awaited) == 0 {
			return true
		}
		if settled && s.Waiting != nil {
			s.Waiting(awaited)
			s.Waiting = nil
		}
		if s.Promising != nil && plan.Promising(s.Config, found) {
			s.Promising()
			s.Promising = nil
		}
		return false
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("waiting for disks: %w", err)
	}
	if asked != nil {
		return nil, fmt.Errorf("asking which disk is which: %w", asked)
	}
	p := plan.Make(s.situation(found))
	p.RefuseAbsent()
	return p, nil
}

// Glance looks at disks while they settle, until ctx ends, and calls Promising once those
// that are there would need a key and none of them would be refused. What it reads is
// forgotten: Run reads again, when nobody changes disks any more.
func (s *Search) Glance(ctx context.Context) {
	s.seen = map[string]*plan.Candidate{}
	// What hinders it will hinder Run, which reports it.
	_ = s.Watch(ctx, func(disks []block.Disk, _ bool) bool {
		p := plan.Make(s.situation(s.candidates(disks)))
		if len(p.Refusals) > 0 || !p.NeedsKey() {
			return false
		}
		s.Promising()
		return true
	})
}

func (s *Search) situation(found []*plan.Candidate) plan.Situation {
	return plan.Situation{Config: s.Config, Candidates: found, Before: s.Before, Active: s.Active, NewUUID: newUUID}
}

// candidates inspects the disks that matter.
func (s *Search) candidates(disks []block.Disk) []*plan.Candidate {
	var found []*plan.Candidate
	for _, d := range block.Mapped(disks, s.mapping) {
		if plan.Relevant(s.Config, d) || plan.Relevant(&config.Config{Volumes: s.Before}, d) {
			found = append(found, s.inspect(d))
		}
	}
	return found
}

// inspect reads a disk once.
func (s *Search) inspect(d block.Disk) *plan.Candidate {
	key := fmt.Sprintf("%s %d:%d %d", d.Name, d.Major, d.Minor, d.Size)
	c, ok := s.seen[key]
	if !ok {
		_ = s.Rec.Do("read", d.Name, func() error {
			c = Inspect(s.Limits, d)
			return nil
		})
		s.seen[key] = c
	}
	c.Disk = d // InUse may have changed
	return c
}

// Files plans for the file-backed volumes of a configuration, below newroot: it
// attaches their files to loop devices, and makes those that may be made. active are the
// UUIDs of mappings that are there, from an earlier try.
func Files(c *config.Config, k Kernel, active map[string]string, lim luks.Limits, newroot string) *plan.Plan {
	s := plan.Situation{Config: c, Active: active, NewUUID: newUUID}
	var refusals []*plan.Refusal
	for i := range c.Volumes {
		v := &c.Volumes[i]
		if v.Device.Kind != config.SelectFile {
			continue
		}
		l, err := k.Attach(newroot, v.Device.Value, v.Size, v.Format == config.FormatBlank)
		if err != nil {
			refusals = append(refusals, &plan.Refusal{Volume: v, Reason: err.Error(),
				Hint: cmp.Or(hint.Of(err), "the root file system must be writable (rw on the kernel command line), with room for the file")})
			continue
		}
		s.Candidates = append(s.Candidates, InspectFile(lim, v.Device.Value, l))
	}
	p := plan.Make(s)
	p.Refusals = append(p.Refusals, refusals...)
	return p
}

// InspectFile reads what is in a file, by its loop device.
func InspectFile(lim luks.Limits, file string, l fsys.Loop) *plan.Candidate {
	c := Inspect(lim, block.Disk{Name: file, Path: l.Path, Major: l.Major, Minor: l.Minor, Size: l.Size, SectorSize: 512, InUse: l.InUse})
	c.File = file
	return c
}

// Inspect reads what is on a disk. There is no time limit but the disk's own: the kernel
// waits for a device that does not answer.
func Inspect(lim luks.Limits, d block.Disk) *plan.Candidate {
	dev, err := os.Open(d.Path)
	if err != nil {
		return &plan.Candidate{Disk: d, Content: block.Unopened(err)}
	}
	defer dev.Close()
	return Look(dev, lim, d)
}

// Look reads what is on a disk that is open.
func Look(r io.ReaderAt, lim luks.Limits, d block.Disk) *plan.Candidate {
	c := &plan.Candidate{Disk: d, Content: block.Probe(r, d.Size)}
	if c.Content.Kind == block.LUKS {
		c.LUKS, c.Err = readLUKS(r, d.Size, lim)
	}
	return c
}

func readLUKS(r io.ReaderAt, size int64, lim luks.Limits) (*plan.LUKS, error) {
	h, err := luks.Read(r, size, lim)
	if err != nil {
		return nil, fmt.Errorf("reading LUKS header: %w", err)
	}
	l := &plan.LUKS{Version: h.Version(), UUID: h.UUID(), Header: h}
	if t, ok, err := h.Set(); err != nil {
		return nil, err
	} else if ok {
		l.Set = &t
	}
	if t, ok, err := h.KMS(); err != nil {
		return nil, err
	} else if ok {
		l.KMS = &t
	}
	return l, nil
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// NewEpoch names one of a mirror.
func NewEpoch() string { return newUUID()[:8] }
