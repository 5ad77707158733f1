package boot_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/status"
)

const (
	thisBoot = "8f7d2b60-7a43-4a5e-9c3f-0d1f2c3b4a59"
	sum      = "e3b0c44298fc1c14"
)

// left is what unlock left; done are the names of the mappings that it made.
func left(done ...string) *status.Boot {
	b := &status.Boot{BootID: thisBoot, ConfigSum: sum, Result: status.ResultDone}
	for _, name := range done {
		b.Volumes = append(b.Volumes, status.Volume{Name: name, Mapping: "/dev/mapper/" + name})
	}
	return b
}

func TestGuard(t *testing.T) {
	t.Parallel()
	data := config.Volume{Name: "data", Mount: "/mnt/data", Required: true}
	cache := config.Volume{Name: "cache", Mount: "/mnt/cache"}
	rebooting := config.Volume{Name: "data", Required: true, OnFailure: config.FailReboot}
	for _, row := range []struct {
		name    string
		volumes []config.Volume
		skip    bool
		boot    *status.Boot
		mounted string // names of directories
		missing string // in the error; "": none
		reboot  bool
		cover   string
		notes   string
		sum     string // of the configuration, if another
	}{
		{name: "all is there", volumes: []config.Volume{data, cache}, boot: left("data", "cache"), mounted: "/mnt/data /mnt/cache"},
		{name: "no unlock", volumes: []config.Volume{data}, missing: "had no unlock in its initramfs", cover: "data"},
		{name: "another boot's", volumes: []config.Volume{data}, boot: &status.Boot{BootID: "another", Volumes: left("data").Volumes},
			missing: "had no unlock in its initramfs", cover: "data"},
		{name: "the optional one alone is missing", volumes: []config.Volume{data, cache}, boot: left("data"), mounted: "/mnt/data", cover: "cache"},
		{name: "a volume that is new in the root", volumes: []config.Volume{data}, boot: &status.Boot{BootID: thisBoot, ConfigSum: "older", Result: status.ResultDone},
			missing: "knew nothing of it", cover: "data", notes: "differs"},
		{name: "another configuration with the same volumes", volumes: []config.Volume{data}, mounted: "/mnt/data",
			boot: &status.Boot{BootID: thisBoot, ConfigSum: "older", Volumes: left("data").Volumes}, notes: "differs"},
		{name: "a volume that failed", volumes: []config.Volume{data}, missing: "not open", cover: "data",
			boot: &status.Boot{BootID: thisBoot, ConfigSum: sum, Volumes: []status.Volume{{Name: "data", Action: "failed"}}}},
		{name: "absent, as it may be", volumes: []config.Volume{data}, cover: "data",
			boot: &status.Boot{BootID: thisBoot, ConfigSum: sum, Volumes: []status.Volume{{Name: "data", Action: status.ActionAbsent}}}},
		{name: "skipped", volumes: []config.Volume{data, cache}, skip: true, cover: "data cache"},
		{name: "skipped, covered already", volumes: []config.Volume{data}, skip: true, boot: left(), mounted: "/mnt/data"},
		{name: "to be rebooted", volumes: []config.Volume{rebooting}, missing: "had no unlock", reboot: true},
		{name: "one of two to be rebooted", volumes: []config.Volume{rebooting, {Name: "other", Required: true}}, missing: `"other" is required`},
		{name: "separate disks", volumes: []config.Volume{{Name: "disk", Layout: config.LayoutSeparate, Required: true}}, boot: left("disk0", "disk1")},
		{name: "a directory that is not bound", boot: left("data"), mounted: "/mnt/data /srv/a", cover: "data", notes: "differs",
			volumes: []config.Volume{{Name: "data", Mount: "/mnt/data", Binds: []config.Bind{{Path: "/srv/a"}, {Path: "/srv/b"}}}}, sum: "newer"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := boot.Guard{
				Config: &config.Config{Volumes: row.volumes, Skip: row.skip, Sum: cmp.Or(row.sum, sum)}, Boot: row.boot, BootID: thisBoot,
				Mounted: func(dir string) bool { return slices.Contains(strings.Fields(row.mounted), dir) },
			}.Judge()
			if row.missing == "" && v.Missing != nil || row.missing != "" && !strings.Contains(fmt.Sprint(v.Missing), row.missing) {
				t.Errorf("missing: %v, want %q", v.Missing, row.missing)
			}
			if v.Missing != nil && (v.Reboot() != row.reboot || !strings.Contains(hint.Of(v.Missing), "rd.unlock=0")) {
				t.Errorf("reboot: %v, want %v; hint: %q", v.Reboot(), row.reboot, hint.Of(v.Missing))
			}
			var cover []string
			for _, c := range v.Cover {
				cover = append(cover, c.Name)
			}
			if got := strings.Join(cover, " "); got != row.cover {
				t.Errorf("covers %q, want %q", got, row.cover)
			}
			if got := strings.Join(v.Notes, "; "); !strings.Contains(got, row.notes) || row.notes == "" && got != "" {
				t.Errorf("notes: %q, want %q", got, row.notes)
			}
		})
	}
}
