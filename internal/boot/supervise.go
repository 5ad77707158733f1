package boot

import (
	"math/rand/v2"
	"time"
)

// Supervisor has the parts of a boot done in processes of their own, which may hold
// secrets, and does what they ask for. It lives as long as the boot.
type Supervisor struct {
	Log Logger
	// Work has a part done. The error is about doing so, not about the part.
	Work func(args ...string) (Outcome, error)
	// Restart restarts the machine; it returns if it cannot.
	Restart func() error
}

// Run has a part done. It returns Locked in place of Reboot, where the machine cannot
// be rebooted.
func (s *Supervisor) Run(args ...string) Outcome {
	outcome, err := s.Work(args...)
	if err != nil {
		s.Log.Failure(err)
	}
	if outcome == Reboot {
		s.Reboot()
		return Locked
	}
	return outcome
}

// Reboot restarts the machine after a minute or two that spare AWS a stampede. It
// returns if it cannot.
func (s *Supervisor) Reboot() {
	wait := time.Minute + rand.N(time.Minute)
	s.Log.Errorf("rebooting in %.0f s (on_failure = \"reboot\")", wait.Seconds())
	<-time.After(wait)
	if err := s.Restart(); err != nil {
		s.Log.Errorf("rebooting: %v", err)
	}
}
