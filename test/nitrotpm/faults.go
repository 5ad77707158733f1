package nitrotpm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Fault is a way in which the TPM can fail. What a fault says of commands is meant of
// those that get a document, NV_DefineSpace, NV_Write and the vendor command, which
// firmware and kernel do not send.
type Fault struct {
	Name string
	Help string
}

var faults = []Fault{
	{"retry", "commands answer TPM_RC_RETRY"},
	{"testing", "commands answer TPM_RC_TESTING"},
	{"yielded", "commands answer TPM_RC_YIELDED"},
	{"slow", "commands take as long as the argument says, which is required"},
	{"truncated", "the answer to NV_Read ends in the middle"},
	{"no-vendor-command", "there is no vendor command, as on other instance types"},
	{"nv-full", "NV_DefineSpace answers TPM_RC_NV_SPACE"},
	{"owner-auth", "NV_DefineSpace answers TPM_RC_BAD_AUTH: the owner has a password"},
	{"lockout", "NV_DefineSpace answers TPM_RC_LOCKOUT"},
	{"nsm-error", "the answer to a request is an error"},
	{"stale", "documents are ten minutes old"},
	{"forged", "a bit of each document's signature is wrong"},
}

// Faults lists all faults. Each may have an argument after a colon: a number for as many
// times, or a duration from the first time.
func Faults() []Fault { return slices.Clone(faults) }

// fault that is set.
type fault struct {
	left   int // -1: without end
	window time.Duration
	since  time.Time
}

// SetFaults replaces the faults.
func (t *TPM) SetFaults(names ...string) error {
	set := map[string]*fault{}
	for _, n := range names {
		name, arg, given := strings.Cut(n, ":")
		if !slices.ContainsFunc(faults, func(f Fault) bool { return f.Name == name }) {
			return fmt.Errorf("no fault of the TPM is named %q", name)
		}
		f := &fault{left: -1}
		if given {
			var err error
			if f.left, err = strconv.Atoi(arg); err != nil {
				if f.window, err = time.ParseDuration(arg); err != nil {
					return fmt.Errorf("fault %q: %w", n, err)
				}
			}
		}
		set[name] = f
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults, t.struck = set, map[string]int{}
	return nil
}

// Struck returns how often a fault has struck since it was set.
func (t *TPM) Struck(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.struck[name]
}

// set reports whether a fault is set, for commands that firmware and kernel send, too.
func (t *TPM) set(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.faults[name] != nil
}

// strikes reports whether a fault strikes now, and counts it.
func (t *TPM) strikes(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.faults[name]
	switch {
	case f == nil || f.left == 0 && f.window == 0:
		return false
	case f.window > 0:
		if f.since.IsZero() {
			f.since = time.Now()
		}
		if time.Since(f.since) > f.window {
			return false
		}
	case f.left > 0:
		f.left--
	}
	t.struck[name]++
	return true
}

// delay is that of the fault slow.
func (t *TPM) delay() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.faults["slow"]; f != nil {
		t.struck["slow"]++
		return f.window
	}
	return 0
}
