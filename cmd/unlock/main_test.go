package main

import (
	"errors"
	"fmt"
	"testing"

	"unlock/internal/config"
	"unlock/internal/plan"
)

func TestExitStatus(t *testing.T) {
	bad := &config.Error{File: "/etc/unlock.toml", Line: 3, Msg: "unknown setting"}
	refusal := &plan.Refusal{Volume: &config.Volume{Name: "data"}, Reason: "blank"}
	for name, row := range map[string]struct {
		err  error
		want int
	}{
		"success":            {nil, 0},
		"refusal":            {refusal, 1},
		"several refusals":   {errors.Join(refusal, refusal), 1},
		"bad configuration":  {bad, 2},
		"wrapped, bad":       {fmt.Errorf("loading: %w", bad), 2},
		"to be rebooted":     {fmt.Errorf("%w: %w", errReboot, refusal), 3},
		"locked and refused": {errors.Join(errors.New("locked"), refusal), 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exitStatus(row.err); got != row.want {
				t.Errorf("exitStatus(%v) = %d, want %d", row.err, got, row.want)
			}
		})
	}
}
