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

// most is how much longer than its round trips and its processor time the part of a boot may
// take in which devices have settled already.
const most = 1.2

// OwnShare checks that unlock adds nothing to what it does once devices have settled: the
// time until all volumes on disks were open is that of the requests which it waited for, a
// round-trip time each, and of the processor, of which there must be one only, as two that are
// emulated take each other's time. The script has to call show_status.
func OwnShare(roundTrip time.Duration) Judge {
	return func(l *Lab) error { return l.ownShare(roundTrip) }
}

func (l *Lab) ownShare(roundTrip time.Duration) error {
	b, err := l.BootStatus()
	if err != nil {
		return err
	}
	var settled, done status.Millis
	for _, s := range b.Steps {
		switch end := s.Start + s.Duration; s.Name {
		case "settling":
			settled = end
		case "open", "format", "mkfs", "mark", "closing":
			done = max(done, end)
		}
	}
	trips := 0
	for _, c := range b.Calls {
		if c.Start+c.Duration > settled {
			trips++
		}
	}
	took, needed := time.Duration(done-settled), time.Duration(trips)*roundTrip+time.Duration(b.CPU)
	l.Note("%v from settled devices on: %d round trips and %v of processor time, factor %.2f", took, trips, time.Duration(b.CPU), float64(took)/float64(needed))
	if settled == 0 || b.CPU == 0 || float64(took) > most*float64(needed) {
		return fmt.Errorf("from settled devices on it took %v; of %d round trips and the processor, %v:\n%s", took, trips, needed, b.Timeline(60))
	}
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
