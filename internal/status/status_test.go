package status_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unlock/internal/status"
)

func TestWriteRead(t *testing.T) {
	r := status.NewRecorder()
	_ = r.Step("network", "eth0", func() error { return nil })
	_ = r.Step("key", "header", func() error { return errors.New("denied") })
	r.Called(status.Call{Service: "kms", Operation: "Decrypt", RequestID: "1-2-3", Attempts: 2})
	b := &status.Boot{Version: "1", Result: status.ResultFailed}
	r.Fill(b)
	file := filepath.Join(t.TempDir(), "run", "status.json")
	if err := status.Write(file, b); err != nil {
		t.Fatal(err)
	}
	got, err := status.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Steps) != 2 || got.Steps[1].Error != "denied" || got.Calls[0].RequestID != "1-2-3" {
		t.Errorf("Read = %+v", got)
	}
}

func TestTimeline(t *testing.T) {
	at := func(ms int) status.Millis { return status.Millis(time.Duration(ms) * time.Millisecond) }
	b := &status.Boot{Duration: at(100), Steps: []status.Step{
		{Name: "key", Subject: "header", Start: at(50), Duration: at(50)},
		{Name: "disks", Start: at(0), Duration: at(10)},
		{Name: "mkfs", Start: at(100), Duration: at(0)}, // at the very end: still a mark
	}}
	want := []string{
		"disks                              █              0.0 +10.0 ms",
		"key header                              █████    50.0 +50.0 ms",
		"mkfs                                        █   100.0 +0.0 ms",
	}
	got := strings.Split(b.Timeline(10), "\n")
	for i, line := range want {
		if got[i] != line {
			t.Errorf("line %d = %q, want %q", i, got[i], line)
		}
	}
}

// TestTimelineTells: a failure has its reason, and time that belongs to no step a line.
func TestTimelineTells(t *testing.T) {
	t.Parallel()
	at := func(ms int) status.Millis { return status.Millis(time.Duration(ms) * time.Millisecond) }
	b := &status.Boot{Duration: at(100), Steps: []status.Step{
		{Name: "dhcp", Start: at(0), Duration: at(30), Error: "nobody answers"},
		{Name: "disks", Start: at(10), Duration: at(10)},
		{Name: "key", Start: at(80), Duration: at(19)},
	}}
	got := b.Timeline(10)
	for _, want := range []string{
		"dhcp                               ███            0.0 +30.0 ms FAILED\n    nobody answers\n",
		"in no step                            ░░░░░ ░         +51.0 ms\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("Timeline =\n%s\nwant %q in it", got, want)
		}
	}
	b.Steps = []status.Step{{Name: "all", Duration: at(100)}}
	if got := b.Timeline(10); strings.Contains(got, "no step") {
		t.Errorf("Timeline of one step =\n%s", got)
	}
}

// TestNamed: steps may overlap, begin before what is recorded, and end after it.
func TestNamed(t *testing.T) {
	t.Parallel()
	at := func(ms int) status.Millis { return status.Millis(time.Duration(ms) * time.Millisecond) }
	step := func(from, to int) status.Step { return status.Step{Start: at(from), Duration: at(to - from)} }
	for name, row := range map[string]struct {
		steps []status.Step
		want  float64
	}{
		"none":             {nil, 0},
		"all":              {[]status.Step{step(0, 100)}, 1},
		"side by side":     {[]status.Step{step(0, 60), step(10, 20), step(60, 100)}, 1},
		"a gap":            {[]status.Step{step(0, 60), step(10, 20), step(70, 100)}, 0.9},
		"small ones count": {[]status.Step{step(0, 50), step(51, 100)}, 0.99},
		"at both ends":     {[]status.Step{step(10, 80)}, 0.7},
		"beyond the end":   {[]status.Step{step(0, 200)}, 1},
	} {
		b := &status.Boot{Duration: at(100), Steps: row.steps}
		if got := b.Named(); got < row.want-0.0001 || got > row.want+0.0001 {
			t.Errorf("%s: Named = %v, want %v", name, got, row.want)
		}
	}
}

func TestTimelineKernel(t *testing.T) {
	t.Parallel()
	b := &status.Boot{Duration: status.Millis(time.Second), Kernel: status.Millis(4200 * time.Millisecond), Began: status.Millis(9 * time.Second)}
	const want = "kernel                             4200.0 ms, then 4800.0 ms until unlock was started\n"
	if got := b.Timeline(10); !strings.HasPrefix(got, want) {
		t.Errorf("Timeline =\n%s\nwant %q first", got, want)
	}
}
