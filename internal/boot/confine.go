package boot

import (
	"errors"

	"unlock/internal/confine"
	"unlock/internal/plan"
)

// confined reports that the process could not be confined. That is no reason to leave
// volumes locked.
func (p *part) confined(err error) {
	switch {
	case err == nil:
	case !errors.Is(err, confine.ErrUnsupported):
		p.Log.Failure(err)
	case p.cfg.Debug:
		p.Log.Warnf("%v", err)
	}
}

// confineTo leaves only the disks of the plan open to the process.
func (p *part) confineTo(decided *plan.Plan) {
	if p.Confine == nil {
		return
	}
	var disks []string
	for _, step := range decided.Steps {
		for _, m := range step.Members {
			disks = append(disks, m.Disk.Path)
		}
		for _, c := range step.Out {
			if step.Behind(c) { // what the kernel wrote on it is read
				disks = append(disks, c.Disk.Path)
			}
		}
	}
	var err error // the step has ended, whatever came of it
	_ = p.rec.Step("confining", "", func() error {
		err = p.Confine(disks)
		return nil
	})
	p.confined(err)
	if p.cfg.Debug && err == nil {
		p.Log.Warnf("confined to %v", disks)
	}
}
