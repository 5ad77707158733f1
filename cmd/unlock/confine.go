package main

import (
	"errors"
	"os"

	"unlock/internal/confine"
	"unlock/internal/dm"
	"unlock/internal/plan"
)

// confined tells that the process could not be confined. That is no reason to leave
// volumes locked.
func (s *boot) confined(err error) {
	switch {
	case err == nil:
	case !errors.Is(err, confine.ErrUnsupported):
		complain(err)
	case s.cfg.Debug:
		logf(levelWarning, "%v", err)
	}
}

// confineTo leaves only the disks of the plan open to the process. What follows may
// not mount.
func (s *boot) confineTo(p *plan.Plan) {
	var disks []string
	for _, step := range p.Steps {
		for _, m := range step.Members {
			disks = append(disks, m.Disk.Path)
		}
	}
	err := os.MkdirAll(dm.Nodes, 0o700)
	if err == nil {
		err = confine.Devices(disks, dm.Nodes)
	}
	s.confined(err)
	if s.cfg.Debug && err == nil {
		logf(levelWarning, "confined to %v", disks)
	}
}
