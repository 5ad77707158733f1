package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A unit that holds up a shell goes on for systemd, which stops it, and for nobody else.
func TestBeingStopped(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []bool // of systemd, one for each signal
		want    bool
	}{
		{"systemd stops the unit", []bool{true}, true},
		{"somebody else first", []bool{false, false, true}, true},
		{"somebody else only", []bool{false}, false},
		{"nothing", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			signals := make(chan os.Signal, len(c.answers))
			for range c.answers {
				signals <- unix.SIGTERM
			}
			asked := 0
			deactivating := func() bool { asked++; return c.answers[asked-1] }
			limit := time.Hour
			if !c.want {
				limit = 50 * time.Millisecond
			}
			if got := beingStopped(signals, deactivating, limit); got != c.want {
				t.Errorf("the unit goes on: %v, want %v", got, c.want)
			}
		})
	}
}
