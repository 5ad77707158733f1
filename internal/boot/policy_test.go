package boot_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/hint/plain"
	"unlock/internal/plan"
)

func TestOutcomeOf(t *testing.T) {
	t.Parallel()
	bad := &config.Error{File: "/etc/unlock.toml", Line: 3, Msg: "unknown setting"}
	refusal := &plan.Refusal{Volume: &config.Volume{Name: "data"}, Reason: "blank"}
	for name, row := range map[string]struct {
		err  error
		want boot.Outcome
	}{
		"success":            {nil, boot.Done},
		"refusal":            {refusal, boot.Locked},
		"several refusals":   {hint.All(refusal, refusal), boot.Locked},
		"bad configuration":  {bad, boot.BadConfig},
		"wrapped, bad":       {fmt.Errorf("loading: %w", bad), boot.BadConfig},
		"locked and refused": {errors.Join(errors.New("locked"), refusal), boot.Locked},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := boot.OutcomeOf(row.err); got != row.want {
				t.Errorf("OutcomeOf(%v) = %d, want %d", row.err, got, row.want)
			}
		})
	}
}

// TestSupervisor has workers end in each way.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		outcome       boot.Outcome
		work, restart error
		want          boot.Outcome
		said          []string // beginnings
		waits         bool
	}{
		"done":                {outcome: boot.Done, want: boot.Done},
		"locked":              {outcome: boot.Locked, want: boot.Locked},
		"bad configuration":   {outcome: boot.BadConfig, want: boot.BadConfig},
		"not scrubbed":        {outcome: boot.Done, work: hint.All(errors.New("overwriting"), errors.New("free memory")), want: boot.Done, said: []string{"overwriting", "free memory"}},
		"broken down":         {outcome: boot.Locked, work: errors.New("the worker broke down"), want: boot.Locked, said: []string{"the worker broke down"}},
		"reboot":              {outcome: boot.Reboot, want: boot.Locked, said: []string{"rebooting in", "restarting"}, waits: true},
		"cannot be restarted": {outcome: boot.Reboot, restart: errors.New("not permitted"), want: boot.Locked, said: []string{"rebooting in", "restarting", "rebooting: not permitted"}, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var said, args []string
				s := &boot.Supervisor{
					Log:     func(_ boot.Level, line string) { said = append(said, line) },
					Work:    func(a ...string) (boot.Outcome, error) { args = a; return row.outcome, row.work },
					Restart: func() error { said = append(said, "restarting"); return row.restart },
				}
				start := time.Now()
				if got := s.Run("mount", "/sysroot"); got != row.want || !slices.Equal(args, []string{"mount", "/sysroot"}) {
					t.Errorf("Run = %d, with arguments %q, want %d", got, args, row.want)
				}
				if took := time.Since(start); row.waits && (took < time.Minute || took > 2*time.Minute) || !row.waits && took > 0 {
					t.Errorf("it took %v", took)
				}
				if !slices.EqualFunc(said, row.said, func(line, want string) bool { return len(line) >= len(want) && line[:len(want)] == want }) {
					t.Errorf("it said and did %q, want %q", said, row.said)
				}
			})
		})
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var lines []string
	log := boot.Logger(func(l boot.Level, line string) { lines = append(lines, fmt.Sprint(int(l), " ", line)) })
	log.Failure(nil)
	log.Failure(hint.All(hint.New("locked", "find the key"), errors.New("two\nlines")))
	log.Errorf("IMDS says %s", "\x1b[2Jall is well")
	log.Errorf("%s", strings.Repeat("x", 60_000))
	log.Warnf("%d disks", 2)
	log.Infof("done")
	want := []string{"3 locked", "3 hint: find the key", "3 two; lines", `3 IMDS says \x1b[2Jall is well`,
		"3 " + strings.Repeat("x", plain.Max-len("…")) + "…", "4 2 disks", "6 done"}
	if !slices.Equal(lines, want) {
		t.Errorf("lines %q, want %q", lines, want)
	}
}
