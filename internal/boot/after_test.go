package boot_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/fsys"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/test/pipecloud"
)

// TestOpen: a volume is opened after the boot as in it, but formats only for who asks.
func TestOpen(t *testing.T) {
	const ours = pipecloud.Passphrase
	data := func(settings ...string) string {
		return volume("data", "serial=A", append(settings, `filesystem = "ext4"`, `mount = "/mnt/data"`)...)
	}
	mapped := func(m *machine) {
		m.active["data"], m.table = plan.CryptUUID("LUKS2", uuid, "data"), tableOfA("0:0")
	}
	both := func(changes ...func(*machine)) func(*machine) {
		return func(m *machine) {
			for _, c := range changes {
				c(m)
			}
		}
	}
	for name, row := range map[string]struct {
		volumes string
		a       string // what the disk A holds; "-": it is not there
		open    string // the volume; "": data
		format  bool
		change  func(*machine)
		outcome boot.Outcome
		takes   time.Duration // at least
		want    []string
		never   []string
	}{
		"open": {volumes: data(), a: ours,
			want:  []string{`info: volume "data": open A (LUKS`, "network up", "map data", "mount /dev/mapper/data on /mnt/data", "network down", "info: done in"},
			never: []string{"error", "warning", "cover", "make"}},
		"format not asked for": {volumes: data(blank), outcome: boot.Locked,
			want: []string{`error: refusing `, "error: hint: unlockctl open --format"}, never: []string{"map", "make", "mount"}},
		"format": {volumes: data(blank), format: true, want: []string{"map data", "make ext4 on data", "mount /dev/mapper/data on /mnt/data"}},
		"format, not configured": {volumes: data(), format: true, outcome: boot.Locked,
			want: []string{`error: refusing `, `error: hint: set format = "blank"`}, never: []string{"map", "make", "mount"}},
		"format, data on it": {volumes: data(blank), a: "data", format: true, outcome: boot.Locked, want: []string{"error: refusing "}, never: []string{"map", "make", "mount"}},
		"wrong key": {volumes: data(blank), a: "another passphrase of somebody else's", format: true, outcome: boot.Locked,
			want: []string{`error: volume "data": `}, never: []string{"map", "make", "mount"}},
		"ephemeral, not asked for": {volumes: volume("data", "instance-store", `format = "ephemeral"`), outcome: boot.Locked,
			want: []string{"error: refusing ", "error: hint: unlockctl open --format"}, never: []string{"map"}},

		"open already": {volumes: data(), a: ours, change: mapped,
			want: []string{`info: volume "data": already open A`, "mount /dev/mapper/data on /mnt/data"}, never: []string{"map", "network", "error"}},
		"open and mounted already": {volumes: volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/usr/bin"`), a: ours,
			change: both(mapped, func(m *machine) { m.mounts = []fsys.MountPoint{{Dir: "/elsewhere"}, {Dir: "/usr/bin"}} }),
			want:   []string{`info: volume "data": already open A`, "info: done in"}, never: []string{"map", "network", "mount", "error"}},
		"mapping of another": {volumes: data(), a: ours, outcome: boot.Locked, change: func(m *machine) { m.active["data"] = "LVM-of-somebody" },
			want: []string{"error: refusing ", "error: hint: choose another name"}, never: []string{"map", "mount"}},
		"table of another": {volumes: data(), a: ours, outcome: boot.Locked, change: both(mapped, func(m *machine) { m.table = tableOfA("259:7") }),
			want: []string{"error: "}, never: []string{"map", "mount"}},
		"disk in use": {volumes: data(), a: ours, outcome: boot.Locked, change: func(m *machine) { m.attach[0].disks[0].InUse = true },
			want: []string{"error: refusing ", "error: hint: lsblk"}, never: []string{"map", "network", "mount"}},
		"disk of another volume": {volumes: volume("first", "/dev/disk-of-two", `required = false`) + data(blank), format: true, outcome: boot.Locked,
			change: func(m *machine) {
				m.attach[0].disks[0].Path = "/dev/disk-of-two"
			},
			want: []string{`error: refusing /dev/disk-of-two for volume "data": volume "first" has it already`}, never: []string{"map", "make", "network"}},

		// Whoever asks for a volume wants it.
		"no disk":                {volumes: data(), a: "-", outcome: boot.Locked, takes: timeout, want: []string{"warning: volume", `error: volume "data": no device serial=A`}},
		"no disk, optional":      {volumes: data(optional), a: "-", outcome: boot.Locked, takes: timeout, want: []string{`error: volume "data": no device`}, never: []string{"cover"}},
		"no disk, may be absent": {volumes: data(`absent = "allow"`), a: "-", outcome: boot.Locked, takes: timeout, want: []string{`error: volume "data": no device`}, never: []string{"cover"}},
		"locked, optional": {volumes: data(optional), a: ours, outcome: boot.Locked, change: func(m *machine) { m.answer("kms", "", http.StatusBadRequest, denied) },
			want: []string{`error: volume "data": `}, never: []string{"map", "mount", "cover"}},
		"locked, reboots": {volumes: data(reboots), a: ours, outcome: boot.Locked, change: func(m *machine) { m.answer("kms", "", http.StatusBadRequest, denied) },
			want: []string{`error: volume "data": `}},
		"not mounted, optional": {volumes: data(optional), a: ours, outcome: boot.Locked,
			change: func(m *machine) { m.refuses["mount /dev/mapper/data on /mnt/data "] = errors.New("bad superblock") },
			want:   []string{"map data", `error: volume "data": bad superblock`}, never: []string{"cover"}},
		"grows": {volumes: data("grow = true"), a: ours, change: func(m *machine) { m.table.Sectors = 2048 },
			want: []string{"mount /dev/mapper/data on /mnt/data", "grow ext4 on /mnt/data to 1048576"}},

		// The others of the configuration are left alone.
		"one of two":     {volumes: volume("other", "serial=B") + data(), a: ours, want: []string{"map data"}, never: []string{"map other", `info: volume "other"`, "error"}},
		"no such volume": {volumes: data(), open: "date", a: ours, outcome: boot.BadConfig, want: []string{"error: ", "error: hint: unlockctl list"}, never: []string{"network", "map"}},

		"no file": {volumes: volume("data", "file:/no-such-file", `size = "17MiB"`, blank), outcome: boot.Locked, change: func(m *machine) { m.noFile = true },
			want: []string{`error: volume "data": no such file`, "error: hint: unlockctl open --format"}, never: []string{"map"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			var disks []block.Disk
			if row.a != "-" {
				disks = append(disks, m.disk(t, "A", row.a))
			}
			m.start(disks)
			if row.change != nil {
				row.change(m)
			}
			const before = `{"result": "done", "volumes": [{"name": "data", "luks_uuids": ["of before"]}]}`
			if err := os.Mkdir(m.file("run"), 0o700); err != nil {
				t.Fatal(err)
			}
			m.write(t, "run/status.json", []byte(before))
			if row.open == "" {
				row.open = "data"
			}
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				if outcome := m.Open(t.Context(), row.open, row.format); outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				if took := time.Since(start); took > timeout || took < row.takes {
					t.Errorf("it took %v, want %v at least, and %v at most", took, row.takes, timeout)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
			if b := m.status(t); row.outcome == boot.Done && (len(b.Volumes) != 1 || b.Volumes[0].Mapping != "/dev/mapper/data" || len(b.Volumes[0].UUIDs) != 1) {
				t.Errorf("the record is %+v", b)
			} else if row.outcome != boot.Done && b.Volumes[0].UUIDs[0] != "of before" {
				t.Errorf("the record of what was done before is %+v now", b)
			}
		})
	}
}

// TestOpenInterrupted: whoever is tired of waiting ends it at once.
func TestOpenInterrupted(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A"))
	m.start(nil)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("^C"))
		defer cancel()
		start := time.Now()
		if outcome := m.Open(ctx, "data", false); outcome != boot.Locked || time.Since(start) != time.Second {
			t.Errorf("outcome %d after %v, want %d after a second", outcome, time.Since(start), boot.Locked)
		}
	})
}

// TestGrowAfter: what is open takes the room that its disk has, with its key if it needs it.
func TestGrowAfter(t *testing.T) {
	const ours = pipecloud.Passphrase
	const all = (diskSize - 16<<20) / 512 // sectors
	mapped := func(sectors uint64) func(*machine) {
		return func(m *machine) {
			m.active["data"], m.table = plan.CryptUUID("LUKS2", uuid, "data"), tableOfA("0:0")
			m.table.Sectors = sectors
			m.mounts = []fsys.MountPoint{{Dir: "/mnt/other name", Type: "xfs"}}
		}
	}
	data := volume("data", "serial=A")
	for name, row := range map[string]struct {
		volumes string
		change  func(*machine)
		outcome boot.Outcome
		want    []string
		never   []string
	}{
		"mapping and file system": {volumes: data, change: mapped(all - 8),
			want: []string{"network up", "info: key s3://bucket/object", "resize data to 2048",
				`info: volume "data": /dev/mapper/data has grown from 1044480 to 1048576 bytes`, "grow xfs on /mnt/other name to 1048576", `info: volume "data": its file system has grown`}},
		"file system": {volumes: data, change: mapped(all),
			want: []string{`info: volume "data": /dev/mapper/data has 1048576 bytes, all`, "grow xfs"}, never: []string{"network", "resize", "error", "warning"}},
		"mapping": {volumes: data, change: func(m *machine) { mapped(all - 8)(m); m.mounts = nil },
			want: []string{"resize data to 2048", `warning: volume "data": no ext4, xfs or btrfs is mounted from it`}, never: []string{"grow", "error"}},
		"not open": {volumes: data, outcome: boot.Locked, want: []string{`error: volume "data" is not open`, "error: hint: unlockctl open"}, never: []string{"network", "resize", "map"}},
		"no disk": {volumes: data, change: func(m *machine) { m.attach[0].disks = nil }, outcome: boot.Locked,
			want: []string{`error: volume "data": no device serial=A`}, never: []string{"network", "resize"}},
		"larger than its disk": {volumes: data, change: mapped(all + 8), outcome: boot.Locked, want: []string{"error: "}, never: []string{"network", "resize", "grow"}},
		"of another disk": {volumes: data, change: func(m *machine) { mapped(all - 8)(m); m.table.Params[3] = "259:7" }, outcome: boot.Locked,
			want: []string{"error: "}, never: []string{"network", "resize", "grow"}},
		"no key": {volumes: data, change: func(m *machine) { mapped(all - 8)(m); m.answer("kms", "", http.StatusBadRequest, denied) }, outcome: boot.Locked,
			want: []string{`error: volume "data": `}, never: []string{"resize", "grow"}},
		"cannot be resized": {volumes: data, change: func(m *machine) { mapped(all - 8)(m); m.refuses["resize data to 2048"] = errors.New("no memory") }, outcome: boot.Locked,
			want: []string{`error: volume "data": no memory`}, never: []string{"grow"}},
		"file system cannot grow": {volumes: data, change: func(m *machine) {
			mapped(all)(m)
			m.refuses["grow xfs on /mnt/other name to 1048576"] = errors.New("read-only")
		}, outcome: boot.Locked, want: []string{`error: volume "data": read-only`}},
		"instance store": {volumes: volume("data", "instance-store"), change: mapped(all - 8), outcome: boot.Locked,
			want: []string{`error: volume "data": instance-store does not become larger`}, never: []string{"network", "resize"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.start([]block.Disk{m.disk(t, "A", ours)})
			if row.change != nil {
				row.change(m)
			}
			synctest.Test(t, func(t *testing.T) {
				if outcome := m.Grow(t.Context(), "data"); outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
		})
	}
}

// TestOpenFinishes: a formatting that was interrupted is finished for who asks only.
func TestOpenFinishes(t *testing.T) {
	for name, row := range map[string]struct {
		format  bool
		outcome boot.Outcome
		want    []string
		never   []string
	}{
		"not asked for": {false, boot.Locked, []string{"error: refusing ", "error: hint: unlockctl open --format"}, []string{"map", "make"}},
		"asked for":     {true, boot.Done, []string{"map data", "make ext4 on data"}, []string{"error"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A", blank, `filesystem = "ext4"`))
			disk := m.disk(t, "A", pipecloud.Passphrase)
			f, err := os.OpenFile(disk.Path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			h, err := luks.Read(f, diskSize, luks.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if err := h.PutSet(f, luks.SetToken{Version: 1, UUID: uuid, Count: 1, State: luks.StateFormed}); err != nil {
				t.Fatal(err)
			}
			m.start([]block.Disk{disk})
			synctest.Test(t, func(t *testing.T) {
				if outcome := m.Open(t.Context(), "data", row.format); outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
		})
	}
}
