package boot

import (
	"errors"

	"unlock/internal/config"
)

// Outcome of a part of a boot, as an exit status.
type Outcome int

const (
	Done      Outcome = 0 // or there was nothing to do
	Locked    Outcome = 1 // a required volume stayed locked: the boot must not go on
	BadConfig Outcome = 2 // the configuration is not understood: likewise
	Reboot    Outcome = 3 // a part's word to its Supervisor: reboot the machine
)

// OutcomeOf returns the outcome of what ended with err, where no volume had a say.
func OutcomeOf(err error) Outcome {
	var bad *config.Error
	switch {
	case err == nil:
		return Done
	case errors.As(err, &bad):
		return BadConfig
	}
	return Locked
}

// policy gathers what the required volumes that failed ask for.
type policy struct {
	reboot, stop bool
}

func (p *policy) failed(v *config.Volume) {
	if v.OnFailure == config.FailReboot {
		p.reboot = true
	} else {
		p.stop = true
	}
}

// given is the outcome of a part that was given up, where these volumes have failed.
func (p *policy) given() Outcome {
	switch {
	case p.stop:
		return Locked
	case p.reboot:
		return Reboot
	}
	return Done
}

// outcome of a part that ended with err. Only if all that failed ask for it is the
// machine rebooted.
func (p *policy) outcome(err error) Outcome {
	if err != nil && p.reboot && !p.stop {
		return Reboot
	}
	return OutcomeOf(err)
}
