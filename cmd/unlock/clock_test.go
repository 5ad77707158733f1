package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"unlock/internal/status"
)

func TestClock(t *testing.T) {
	if from, now := started(), uptime(); from <= 0 || from > now || now-from > time.Hour {
		t.Errorf("started = %v, uptime = %v", from, now)
	}
	if end := kernelEnd(); end < 0 || end > uptime() {
		t.Errorf("kernelEnd = %v", end)
	}
}

// TestEnter: what the parent adds to a record leaves no time without a name. Records of
// other boots, or that do not say when they began, stay what they are. Of two parts of a
// boot the record has what the larger took of memory.
func TestEnter(t *testing.T) {
	for name, row := range map[string]struct {
		boot  string
		knows bool
		peak  int64 // bytes
		want  int   // steps
		holds int64 // bytes
	}{
		"this boot":         {bootID(), true, 24e6, 3, 24e6},
		"a smaller part":    {bootID(), true, 20e6, 3, 22e6},
		"another boot":      {"another", true, 24e6, 1, 22e6},
		"when is not known": {bootID(), false, 24e6, 1, 22e6},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "status.json")
			began := uptime() - time.Second
			b := &status.Boot{BootID: row.boot, Duration: status.Millis(900 * time.Millisecond), PeakRSS: 22e6,
				Steps: []status.Step{{Name: "starting", Start: status.Millis(300 * time.Millisecond), Duration: status.Millis(600 * time.Millisecond)}}}
			if row.knows {
				b.Began = status.Millis(began)
			}
			if err := status.Write(file, b); err != nil {
				t.Fatal(err)
			}
			n := noted{{"modules", began, began + 300*time.Millisecond}}
			if err := n.enter(file, "overwriting", row.peak); err != nil {
				t.Fatal(err)
			}
			got, err := status.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Steps) != row.want {
				t.Fatalf("steps %+v, want %d", got.Steps, row.want)
			}
			if got.PeakRSS != row.holds {
				t.Errorf("peak of memory %d bytes, want %d", got.PeakRSS, row.holds)
			}
			if row.want > 1 && (got.Named() < 0.999 || time.Duration(got.Duration) < time.Second || len(n) != 0) {
				t.Errorf("%v of %v have a name: %+v", got.Named(), got.Duration, got.Steps)
			}
		})
	}
	if err := new(noted).enter(filepath.Join(t.TempDir(), "none"), "", 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
}
