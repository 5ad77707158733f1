package boot_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/status"
	"unlock/test/pipecloud"
)

// TestTimeHasAName: whatever takes long, in whatever way a boot goes, the record names it.
func TestTimeHasAName(t *testing.T) {
	t.Parallel()
	const ours = pipecloud.Passphrase
	for name, row := range map[string]struct {
		volumes string
		content string
		change  func(*machine)
		steps   []string // some of those that must be there
	}{
		"open": {volumes: volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`, "[[volume.bind]]", `path = "/srv/a"`), content: ours,
			steps: []string{"starting", "disks", "network", "confining", "key", "open", "closing", "root", "fsck", "mount", "bind"}},
		"format": {volumes: volume("data", "serial=A", blank, `filesystem = "ext4"`, `mount = "/mnt/data"`, `owner = "postgres"`),
			steps: []string{"format", "mkfs", "mark", "mount", "own"}},
		"a disk that comes late": {volumes: volume("data", "serial=A"), content: ours,
			change: func(m *machine) {
				m.attach = append([]event{{settled: true}}, event{20 * time.Second, m.attach[0].disks, true})
			}},
		"credentials that come late": {volumes: volume("data", "serial=A"), content: ours,
			change: func(m *machine) {
				start := time.Now()
				m.cloud.Answer = func(_ string, r *http.Request) (int, string) {
					if time.Since(start) < 30*time.Second && r.URL.Path == "/latest/meta-data/iam/security-credentials/" {
						return http.StatusNotFound, ""
					}
					return 0, ""
				}
			}},
		"asked for": {volumes: volume("data", "serial=A", prompts), content: recovery,
			change: func(m *machine) {
				m.answer("kms", "", http.StatusBadRequest, denied)
				m.answers = []string{recovery}
			}, steps: []string{"asking"}},
		"in a file": {volumes: volume("file", "file:/disk.img", `size = "17MiB"`, blank, `filesystem = "ext4"`, `mount = "/mnt/file"`), steps: []string{"attach", "mkfs"}},
		"no disk":   {volumes: volume("data", "serial=B", optional, `filesystem = "ext4"`, `mount = "/mnt/data"`), steps: []string{"cover"}},
		"skipped":   {volumes: volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`), change: func(m *machine) { m.Cmdline = "rd.unlock=0" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.start([]block.Disk{m.disk(t, "A", row.content)})
			m.disk(t, "disk.img", "")
			m.slow = time.Second
			synctest.Test(t, func(t *testing.T) {
				if row.change != nil {
					row.change(m)
				}
				// Who asks for a part has been there for a while.
				begin := func(waited time.Duration) {
					m.Began, m.Uptime = time.Now(), time.Since(synctestStart)+time.Minute
					<-time.After(waited)
				}
				begin(2 * time.Second)
				if got := m.Disks(t.Context()); got != boot.Done {
					t.Fatalf("Disks = %d: %q", got, m.journal)
				}
				m.named(t, 0)
				<-time.After(7 * time.Second)
				begin(3 * time.Second)
				if got := m.Files(t.Context(), m.dir); got != boot.Done {
					t.Fatalf("Files = %d: %q", got, m.journal)
				}
				m.named(t, 12*time.Second, row.steps...)
				m.cloud.Wait()
			})
		})
	}
}

// synctestStart is the time at which bubbles begin.
var synctestStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// named checks that all time of what was recorded has a name.
func (m *machine) named(t *testing.T, least time.Duration, steps ...string) {
	t.Helper()
	b := m.status(t)
	if b.Began != status.Millis(time.Minute) || time.Duration(b.Duration) < least {
		t.Errorf("it began %v after the kernel and took %v", time.Duration(b.Began), time.Duration(b.Duration))
	}
	if got := b.Named(); got < 0.999 {
		t.Errorf("%.1f %% of the time have a name:\n%s", 100*got, b.Timeline(60))
	}
	for _, name := range steps {
		if !hasStep(b, name) {
			t.Errorf("no step %q:\n%s", name, b.Timeline(60))
		}
	}
}

func hasStep(b *status.Boot, name string) bool {
	for _, s := range b.Steps {
		if s.Name == name {
			return true
		}
	}
	return false
}
