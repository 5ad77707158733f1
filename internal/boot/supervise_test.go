package boot_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/boot"
)

// supervised is a Supervisor whose part comes to one outcome after the other.
type supervised struct {
	boot.Supervisor
	start    time.Time
	outcomes []boot.Outcome
	tries    []time.Duration // when they began
	lines    []string
}

func newSupervised(outcomes ...boot.Outcome) *supervised {
	s := &supervised{start: time.Now(), outcomes: outcomes}
	s.Supervisor = boot.Supervisor{
		Hold: true, Every: 5 * time.Minute,
		Log:     func(_ boot.Level, line string) { s.lines = append(s.lines, line) },
		Restart: func() error { return errors.New("no") },
		Why:     func() { s.lines = append(s.lines, "why") },
		Work: func(...string) (boot.Outcome, error) {
			s.tries = append(s.tries, time.Since(s.start))
			o := s.outcomes[0]
			s.outcomes = s.outcomes[1:]
			return o, nil
		},
	}
	return s
}

func (s *supervised) said(text string) int { return strings.Count(strings.Join(s.lines, "\n"), text) }

// TestTriesAgain: a boot that is held up tries again by itself, a while after the last
// try, until it succeeds.
func TestTriesAgain(t *testing.T) {
	for _, failure := range []boot.Outcome{boot.Locked, boot.BadConfig} {
		synctest.Test(t, func(t *testing.T) {
			s := newSupervised(failure, failure, boot.Done)
			if got := s.Run(); got != boot.Done {
				t.Errorf("Run = %d, want %d", got, boot.Done)
			}
			for i := range len(s.tries) - 1 {
				if wait := s.tries[i+1] - s.tries[i]; wait < s.Every/2 || wait > s.Every*3/2 {
					t.Errorf("try %d comes %v after the one before, want about %v", i+2, wait, s.Every)
				}
			}
			if len(s.tries) != 3 || s.said("the boot stops here; trying again in") != 2 {
				t.Errorf("%d tries, the console shows %q", len(s.tries), s.lines)
			}
		})
	}
}

// TestRepeatsWhy: whatever the time between tries, the console shows the reason every
// few minutes.
func TestRepeatsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(boot.Locked, boot.Done)
		s.Every = 10 * time.Hour
		s.Run()
		if n, want := s.said("why"), int(s.tries[1]/(5*time.Minute)); n < want-1 || n > want {
			t.Errorf("in %v the reason is repeated %d times", s.tries[1], n)
		}
	})
}

// TestNeverAgain: without retry_every the machine stands still.
func TestNeverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(boot.Locked)
		s.Every = 0
		over := errors.New("a day is over")
		s.Why = func() {
			if s.lines = append(s.lines, "why"); time.Since(s.start) > 24*time.Hour {
				panic(over)
			}
		}
		defer func() {
			if recover() != over || len(s.tries) != 1 {
				t.Errorf("after a day: %d tries", len(s.tries))
			}
		}()
		s.Run()
	})
}

// TestShell: a shell is opened only where the configuration asks for one; a console
// that has none is no reason to go on, or to try again at once.
func TestShell(t *testing.T) {
	for _, broken := range []bool{false, true} {
		t.Run(fmt.Sprintf("broken %v", broken), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSupervised(boot.Locked, boot.Done)
				opened := 0
				s.Shell = func(patience time.Duration) error {
					if opened++; broken {
						return errors.New("no console")
					}
					time.Sleep(patience)
					return nil
				}
				if got := s.Run(); got != boot.Done || opened == 0 || s.tries[1] < s.Every/2 {
					t.Errorf("Run = %d, %d shells, the second try after %v", got, opened, s.tries[1])
				}
				if broken && (opened != 1 || s.said("no console") != 1) {
					t.Errorf("%d shells, the console shows %q", opened, s.lines)
				}
			})
		})
	}
}

// TestReturns: process 1 of the standalone image decides itself what a failure comes to.
func TestReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(boot.Locked)
		s.Hold = false
		if got := s.Run(); got != boot.Locked || time.Since(s.start) > 0 {
			t.Errorf("Run = %d after %v, want %d at once", got, time.Since(s.start), boot.Locked)
		}
	})
}

// TestRebootsThenHolds: a machine that cannot be rebooted is held up.
func TestRebootsThenHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervised(boot.Reboot, boot.Done)
		if got := s.Run(); got != boot.Done || s.said("rebooting in") != 1 || s.said("rebooting: no") != 1 || s.tries[1] < time.Minute {
			t.Errorf("Run = %d, tries at %v, the console shows %q", got, s.tries, s.lines)
		}
	})
}
