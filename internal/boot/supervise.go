package boot

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// remindEvery is how often a boot that is held up says so.
const remindEvery = 5 * time.Minute

// Supervisor has the parts of a boot done in processes of their own, which may hold
// secrets, and does what they ask for. It lives as long as the boot.
type Supervisor struct {
	Log Logger
	// Work has a part done. The error is about doing so, not about the part.
	Work func(args ...string) (Outcome, error)
	// Restart restarts the machine; it returns if it cannot.
	Restart func() error

	// Hold says that a boot which has failed stops here: Run does not return then, but
	// repeats why, and has the part done again every so often. Whatever waits for this
	// process waits with it, so that nothing else in the image, nor its settings, decides
	// what a failure comes to, such as powering off, which would lose the instance store.
	Hold  bool
	Every time.Duration // about so often; 0: never
	// Cap closes the door behind the keys that were attested: nothing that runs later can
	// have them. It comes before a shell; nil: nothing was attested.
	Cap func() error
	// Why says again why the boot is held up.
	Why func()
	// Shell opens a shell on the console for whoever knows root's password, and returns
	// when it is left, which tries again, or after patience if nobody has logged in; nil:
	// there is none.
	Shell func(patience time.Duration) error
}

// Run has a part done. It returns Locked in place of Reboot, where the machine cannot
// be rebooted.
func (s *Supervisor) Run(args ...string) Outcome {
	for {
		outcome := s.once(args)
		if outcome == Done || !s.Hold {
			return outcome
		}
		s.wait()
	}
}

// Close has Cap close the door, when the last part has ended, and holds up a boot where
// that fails. It returns Locked if such a boot is not held up.
func (s *Supervisor) Close() Outcome {
	for {
		err := s.Cap()
		if err == nil {
			return Done
		}
		s.Why = func() { s.Log.Failure(err) }
		s.Why()
		if !s.Hold {
			return Locked
		}
		s.wait()
	}
}

// shell opens a shell behind the closed door.
func (s *Supervisor) shell(patience time.Duration) error {
	if s.Cap != nil {
		if err := s.Cap(); err != nil {
			return fmt.Errorf("no shell is opened: %w", err)
		}
		s.Cap = func() error { return nil } // once is enough
	}
	return s.Shell(patience)
}

func (s *Supervisor) once(args []string) Outcome {
	outcome, err := s.Work(args...)
	if err != nil {
		s.Log.Failure(err)
	}
	if outcome != Reboot {
		return outcome
	}
	s.Reboot()
	return Locked
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

// wait returns when it is time to try again. Instances that fail at the same time do
// not try again at the same time.
func (s *Supervisor) wait() {
	const stopping = "the boot stops here"
	const lost = "stopping the instance would lose its instance store; rebooting it does not"
	left := s.Every
	if left > 0 {
		left = left/2 + rand.N(left)
		s.Log.Errorf("%s; trying again in %.0f s (%s)", stopping, left.Seconds(), lost)
	} else {
		s.Log.Errorf("%s (%s)", stopping, lost)
	}
	for {
		pause := remindEvery
		if s.Every > 0 {
			pause = min(pause, left)
		}
		begun := time.Now()
		if s.Shell == nil {
			<-time.After(pause)
		} else if err := s.shell(pause); err != nil {
			s.Log.Failure(err)
			s.Shell = nil
			continue
		} else if s.Every > 0 && time.Since(begun) < pause {
			return // somebody has left it
		}
		if left -= pause; s.Every > 0 && left <= 0 {
			return
		}
		s.Why()
		s.Log.Errorf(stopping)
	}
}

// Stop holds up a boot for good, for a reason that no later try would change.
func (s *Supervisor) Stop(why error) {
	s.Every = 0
	s.Why = func() { s.Log.Failure(why) }
	s.Why()
	s.wait()
}
