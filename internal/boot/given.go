package boot

import (
	"errors"
	"slices"
	"sync"

	"unlock/internal/hint"
	"unlock/internal/plan"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// given is what would become of the part if it were given up now.
type given struct {
	mu     sync.Mutex
	left   []*plan.Step // that have not ended
	ended  []unlock.Result
	policy policy // of the required volumes that have failed
}

var errGivenUp = errors.New("a disk did not answer within the deadline")

// watched has the deadline held by somebody who can still speak. Until more is known,
// all required volumes would have failed.
func (p *part) watched() {
	p.rec.Doing = p.Progress.doing
	p.Progress.otherwise(p.allFailed())
	p.Progress.deadline(p.cfg.Timeout)
}

func (p *part) allFailed() Outcome {
	var all policy
	for i := range p.cfg.Volumes {
		if v := &p.cfg.Volumes[i]; v.Required {
			all.failed(v)
		}
	}
	return all.given()
}

// pending are the steps that are about to be carried out.
func (p *part) pending(decided *plan.Plan) {
	p.given.mu.Lock()
	defer p.given.mu.Unlock()
	for i := range decided.Steps {
		p.given.left = append(p.given.left, &decided.Steps[i])
	}
	p.foresee()
}

// ended is called as each of them ends.
func (p *part) ended(r unlock.Result) {
	p.given.mu.Lock()
	defer p.given.mu.Unlock()
	p.given.left = slices.DeleteFunc(p.given.left, func(s *plan.Step) bool { return s == r.Step })
	p.given.ended = append(p.given.ended, r)
	if r.Err != nil && r.Step.Volume.Required {
		p.given.policy.failed(r.Step.Volume)
	}
	p.foresee()
}

// foresee tells the Supervisor, and leaves the status, for the case that the part is
// given up.
func (p *part) foresee() {
	if p.Progress == nil {
		return
	}
	policy, b := p.given.policy, *p.report
	b.Volumes = slices.Clone(b.Volumes)
	for _, r := range p.given.ended {
		b.Volumes = append(b.Volumes, record(r))
	}
	for _, s := range p.given.left {
		if s.Volume.Required {
			policy.failed(s.Volume)
		}
		for _, r := range unlock.Ends(unlock.Result{Step: s, Err: errGivenUp}, nil) {
			b.Volumes = append(b.Volumes, record(r))
		}
	}
	outcome := policy.given()
	if outcome != Done {
		b.Result, b.Error, b.Hint = status.ResultFailed, errGivenUp.Error(), hint.DiskFails
	}
	p.Progress.otherwise(outcome)
	p.rec.Fill(&b)
	if err := status.Write(p.Status, &b); err != nil {
		p.Log.Failure(err)
	}
}
