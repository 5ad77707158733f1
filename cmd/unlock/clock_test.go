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
// other boots, or that do not say when they began, stay what they are.
func TestEnter(t *testing.T) {
	for name, row := range map[string]struct {
		boot  string
		knows bool
		want  int // steps
	}{
		"this boot":         {bootID(), true, 3},
		"another boot":      {"another", true, 1},
		"when is not known": {bootID(), false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "status.json")
			began := uptime() - time.Second
			b := &status.Boot{BootID: row.boot, Duration: status.Millis(900 * time.Millisecond),
				Steps: []status.Step{{Name: "starting", Start: status.Millis(300 * time.Millisecond), Duration: status.Millis(600 * time.Millisecond)}}}
			if row.knows {
				b.Began = status.Millis(began)
			}
			if err := status.Write(file, b); err != nil {
				t.Fatal(err)
			}
			n := noted{{"modules", began, began + 300*time.Millisecond}}
			if err := n.enter(file, "overwriting"); err != nil {
				t.Fatal(err)
			}
			got, err := status.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Steps) != row.want {
				t.Fatalf("steps %+v, want %d", got.Steps, row.want)
			}
			if row.want > 1 && (got.Named() < 0.999 || time.Duration(got.Duration) < time.Second || len(n) != 0) {
				t.Errorf("%v of %v have a name: %+v", got.Named(), got.Duration, got.Steps)
			}
		})
	}
	if err := new(noted).enter(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
}
