package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"unlock/internal/status"
)

// named is which part of its time a boot must have a name for.
const named = 0.95

// TimeHasAName checks that steps cover the time of unlock, which began when the kernel's
// own time ended or systemd started it. The script has to call show_status.
func TimeHasAName(l *Lab) error {
	b, err := l.BootStatus()
	if err != nil {
		return err
	}
	start := time.Duration(b.Kernel)
	for _, line := range l.Console {
		if text, ok := strings.CutPrefix(line.Text, "started: "); ok {
			us, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				return fmt.Errorf("%q: %w", line.Text, err)
			}
			start = time.Duration(us) * time.Microsecond
		}
	}
	late := max(time.Duration(b.Began)-start, 0)
	part := b.Named() * float64(b.Duration) / (float64(b.Duration) + float64(late))
	if b.Kernel == 0 || start == 0 || part < named {
		return fmt.Errorf("%.1f %% of the time have a name; the kernel's own ended at %v, unlock was started at %v and began at %v:\n%s",
			100*part, time.Duration(b.Kernel), start, time.Duration(b.Began), b.Timeline(60))
	}
	l.Note("%.1f %% of %.1f s have a name", 100*part, time.Duration(b.Duration).Seconds())
	return nil
}

// BootStatus returns what unlock left in the last boot, whose script has to call
// show_status.
func (l *Lab) BootStatus() (*status.Boot, error) {
	for _, line := range l.Console {
		if text, ok := strings.CutPrefix(line.Text, "status: "); ok {
			b := &status.Boot{}
			return b, json.Unmarshal([]byte(text), b)
		}
	}
	return nil, errors.New("the console shows no status")
}
