package boot_test

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/confine"
	"unlock/internal/dm"
	"unlock/internal/netup"
	"unlock/internal/status"
	"unlock/test/pipecloud"
)

const (
	optional = "required = false"
	prompts  = `on_failure = "prompt"`
	reboots  = `on_failure = "reboot"`
	blank    = `format = "blank"`
	denied   = `{"__type":"AccessDeniedException","message":"no"}`
)

// tableOfA maps the payload of disk A, or so it says.
func tableOfA(device string) dm.Table {
	return dm.Table{Kind: "crypt", Sectors: (diskSize - 16<<20) / 512, Params: []string{"aes-xts-plain64", "", "0", device, "32768", "1", "no_read_workqueue"}}
}

// TestDisks holds every way in which the part before the new root can end, and what the
// failure policy makes of it.
func TestDisks(t *testing.T) {
	const ours, other = pipecloud.Passphrase, "another passphrase of somebody else's"
	data := func(settings ...string) string { return volume("data", "serial=A", settings...) }
	more := func(settings ...string) string { return volume("more", "serial=B", settings...) }
	store := func(settings ...string) string { return volume("store", "instance-store", settings...) }
	denies := func(m *machine) { m.answer("kms", "", http.StatusBadRequest, denied) }
	refuse := func(what string, err error) func(*machine) {
		return func(m *machine) { m.refuses[what] = err }
	}
	for name, row := range map[string]struct {
		volumes string
		a, b    string // what the disks A and B hold; "-": it is not there
		change  func(*machine)
		outcome boot.Outcome
		result  string
		takes   time.Duration // 0: no matter how long within the deadline
		want    []string
		never   []string
	}{
		// Nothing fails.
		"open": {volumes: data(), a: ours, result: status.ResultDone,
			want: []string{"restrict", "confine to [A]", `info: volume "data": open A (LUKS`, "network up", "info: key s3://bucket/object: KMS Decrypt",
				"map data", `info: volume "data": /dev/mapper/data is ready`, "rinse", "network down", "info: done in"},
			never: []string{"error: ", "warning: "}},
		"format": {volumes: data(blank, `filesystem = "ext4"`), result: status.ResultDone,
			want: []string{`info: volume "data": format A (blank)`, "map data", "make ext4 on data", "network down", "info: done in"}},
		"ephemeral, without AWS": {volumes: store(`format = "ephemeral"`, `key = { source = "ephemeral" }`), b: "-", result: status.ResultDone,
			want: []string{"map store"}, never: []string{"network up", "rinse"}},
		"open already": {volumes: data(), a: ours, result: status.ResultDone,
			change: func(m *machine) {
				m.active["data"], m.table = "CRYPT-LUKS2-0a1b2c3d00004000800000000000000f-data", tableOfA("0:0")
			},
			want: []string{`info: volume "data": already open A`, `info: volume "data": /dev/mapper/data is ready`}, never: []string{"map", "network up"}},
		"open already, on another disk": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed,
			change: func(m *machine) {
				m.active["data"], m.table = "CRYPT-LUKS2-0a1b2c3d00004000800000000000000f-data", tableOfA("259:7")
			},
			want: []string{`error: volume "data": /dev/mapper/data: the mapping of that name is not what this volume would be`, "error: hint: close it"}, never: []string{"is ready", "map"}},
		"several disks": {volumes: data() + more(), a: ours, b: ours, result: status.ResultDone, want: []string{"confine to [A B]", "network up", "info: done"}},
		"late disk": {volumes: data(), a: ours, result: status.ResultDone, takes: 20 * time.Second,
			change: func(m *machine) {
				m.attach = append([]event{{settled: true}}, event{20 * time.Second, m.attach[0].disks, true})
			},
			want: []string{`warning: volume "data": waiting for device serial=A`, "network up", "map data"}},
		"network while disks are awaited": {volumes: data() + more(), a: ours, b: ours, result: status.ResultDone, takes: 20 * time.Second,
			change: func(m *machine) {
				all := m.attach[0].disks
				m.attach = []event{{disks: all[:1], settled: true}, {20 * time.Second, all, true}}
			},
			want: []string{`warning: volume "more": waiting`, "network up", "confine to [A B]", "map"}},

		// Nothing to do.
		"skipped": {volumes: data(), a: ours, result: status.ResultNothing, change: func(m *machine) { m.Cmdline = "rd.unlock=0" },
			want: []string{"warning: skipped (rd.unlock=0)"}, never: []string{"network", "map", "error"}},
		"no instance store, which is allowed": {volumes: store(`absent = "allow"`), a: "-", b: "-", result: status.ResultNothing,
			want: []string{"info: no disk for any volume: nothing to do"}, never: []string{"network", "error"}},
		"no disk, optional": {volumes: data(optional), a: "-", result: status.ResultNothing,
			want: []string{"info: no disk for any volume: nothing to do"}, never: []string{"network", "error", "warning"}},

		// A required disk does not come.
		"no disk": {volumes: data(), a: "-", outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			want: []string{`warning: volume "data": waiting`, `error: volume "data": no device serial=A`, "error: hint: attach it"}, never: []string{"network"}},
		"no instance store": {volumes: store(), a: "-", b: "-", outcome: boot.Locked, result: status.ResultFailed,
			want: []string{`error: volume "store": no device instance-store`, "error: hint: this instance has no such disk"}, never: []string{"network"}},
		"no disk, reboot": {volumes: data(reboots), a: "-", outcome: boot.Reboot, result: status.ResultFailed, takes: timeout,
			want: []string{`error: volume "data": no device serial=A`}},
		"no disk, prompt": {volumes: data(prompts), a: "-", outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			want: []string{`error: volume "data": no device serial=A`}, never: []string{"Recovery"}},
		"too few disks": {volumes: store("count = 3"), outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			want: []string{`error: refusing`}, never: []string{"map"}},
		"no list of disks": {volumes: data(), outcome: boot.Locked, result: status.ResultFailed, change: refuse("watch", errors.New("no netlink")),
			want: []string{"error: waiting for disks: no netlink"}},

		// Refused.
		"refused": {volumes: data(blank), a: "data", outcome: boot.Locked, result: status.ResultFailed,
			want: []string{"confine to []", "error: refusing", "error: hint: only blank disks are formatted"}, never: []string{"network", "map"}},
		"refused, optional": {volumes: data(blank, optional), a: "data", result: status.ResultDone,
			want: []string{"error: refusing", "error: hint: only", "info: done in"}, never: []string{"network"}},
		"refused, prompt": {volumes: data(prompts, blank), a: "data", outcome: boot.Locked, result: status.ResultFailed,
			want: []string{"error: refusing"}, never: []string{"Recovery"}},
		"refused, reboot": {volumes: data(reboots, blank), a: "data", outcome: boot.Reboot, result: status.ResultFailed,
			want: []string{"error: refusing"}},
		"refused, another not": {volumes: data(blank) + more(), a: "data", b: ours, outcome: boot.Locked, result: status.ResultFailed,
			want: []string{"error: refusing"}, never: []string{"network", "map"}},
		"refused, optional, another not": {volumes: data(blank, optional) + more(), a: "data", b: ours, result: status.ResultDone,
			want: []string{"error: refusing", "network up", "map more", "info: done in"}},
		"refused, stop and reboot": {volumes: data(blank) + more(reboots, blank), a: "data", b: "data", outcome: boot.Locked, result: status.ResultFailed,
			want: []string{"error: refusing", "error: hint", "error: refusing", "error: hint"}},
		"refused, reboot and reboot": {volumes: data(reboots, blank) + more(reboots, blank), a: "data", b: "data", outcome: boot.Reboot,
			result: status.ResultFailed, want: []string{"error: refusing", "error: refusing"}},

		// No key.
		"denied": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed, change: denies,
			want: []string{"network up", "network down", `error: volume "data": decrypting with KMS`, "error: hint: "}, never: []string{"map", "Recovery"}},
		"denied, optional": {volumes: data(optional), a: ours, result: status.ResultDone, change: denies,
			want: []string{`error: volume "data": decrypting with KMS`, "error: hint: ", "network down", "info: done in"}},
		"denied, reboot": {volumes: data(reboots), a: ours, outcome: boot.Reboot, result: status.ResultFailed, change: denies,
			want: []string{`error: volume "data": decrypting with KMS`}},
		"denied, prompt": {volumes: data(prompts), a: recovery, result: status.ResultDone,
			change: func(m *machine) { denies(m); m.answers = []string{"typo", recovery} },
			want: []string{`error: decrypting with KMS`, "Recovery passphrase for volume data:", "error: the passphrase that was typed", "error: hint: type a recovery",
				"Recovery", "map data", "info: done in"}},
		"denied, prompt, mistyped": {volumes: data(prompts), a: recovery, outcome: boot.Locked, result: status.ResultFailed,
			change: func(m *machine) { denies(m); m.answers = []string{"a", "b", "c", recovery} },
			want:   []string{"Recovery", "Recovery", "Recovery", `error: volume "data": the passphrase that was typed does not open it`, "error: hint: type"}, never: []string{"map"}},
		"denied, prompt, nobody": {volumes: data(prompts), a: ours, outcome: boot.Locked, result: status.ResultFailed, change: denies,
			want: []string{"Recovery", `error: volume "data": decrypting with KMS`}, never: []string{"map"}},
		"denied, several": {volumes: data(reboots) + more(), a: ours, b: ours, outcome: boot.Locked, result: status.ResultFailed, change: denies,
			want: []string{`error: volume "data"`, "error: hint", `error: volume "more"`, "error: hint"}},
		"denied, several, prompt": {volumes: data(prompts) + more(prompts), a: recovery, b: recovery, result: status.ResultDone,
			change: func(m *machine) { denies(m); m.answers = []string{recovery, recovery} },
			want:   []string{"error: decrypting with KMS", "error: hint", "Recovery", "error: decrypting with KMS", "error: hint", "Recovery", "info: done in"}},
		"KMS is silent": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			change: func(m *machine) { m.answer("kms", "", -1, "") },
			want:   []string{"network up", "network down", `error: volume "data": decrypting with KMS`}},
		"no role": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			change: func(m *machine) { m.answer("imds", "security-credentials", http.StatusNotFound, "") },
			want:   []string{"warning: waiting for role credentials", "network down", `error: volume "data"`, "error: hint: "}},
		"no network": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed, change: refuse("network up", netup.ErrNoCard),
			want: []string{`error: volume "data": bringing up the network: no network card`, "error: hint: add the driver"}, never: []string{"rinse"}},
		"no network, reboot": {volumes: data(reboots), a: ours, outcome: boot.Reboot, result: status.ResultFailed, change: refuse("network up", netup.ErrNoLink),
			want: []string{`error: volume "data": bringing up the network: no link`}},
		"no network, optional": {volumes: data(optional), a: ours, result: status.ResultDone, change: refuse("network up", netup.ErrNoLease),
			want: []string{`error: volume "data": bringing up the network: no lease`, "info: done in"}},
		"no authorities": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed,
			change: func(m *machine) { m.cloud.Answer, m.spoil = nil, "ca.pem" },
			want:   []string{"network up", "network down", `error: volume "data": reading`, "error: hint"}},

		// The volume does not open.
		"another's passphrase": {volumes: data(), a: other, outcome: boot.Locked, result: status.ResultFailed,
			want: []string{`error: volume "data": opening`, "error: hint: KMS gave a key"}, never: []string{"map"}},
		"another's passphrase, prompt": {volumes: data(prompts), a: recovery, result: status.ResultDone, change: func(m *machine) { m.answers = []string{recovery} },
			want: []string{"error: opening", "error: hint: KMS gave a key", "Recovery", "map data"}},
		"mapped by another": {volumes: data(), a: ours, outcome: boot.Locked, result: status.ResultFailed, change: refuse("map data", dm.ErrExists),
			want: []string{`error: volume "data": a mapping`, "error: hint: another tool"}},
		"some open": {volumes: data() + more(), a: ours, b: other, outcome: boot.Locked, result: status.ResultFailed,
			want: []string{"map data", `info: volume "data": /dev/mapper/data is ready`, `error: volume "more": opening`}},
		"some open, optional": {volumes: data() + more(optional), a: ours, b: other, result: status.ResultDone,
			want: []string{`info: volume "data": /dev/mapper/data is ready`, `error: volume "more": opening`, "info: done in"}},
		"stripe, one cannot be mapped": {volumes: store(blank), outcome: boot.Locked, result: status.ResultFailed, change: refuse("map store_1", errors.New("no memory")),
			want: []string{"map store_0", "unmap store_0", `error: volume "store": no memory`}},

		// Xen.
		"Xen": {volumes: store(), a: ours, b: "-", result: status.ResultDone, change: func(m *machine) { m.xen("ephemeral0") },
			want: []string{"network up", "map store", "network down"}},
		"Xen, IMDS is silent": {volumes: store(), a: ours, b: "-", outcome: boot.Locked, result: status.ResultFailed, takes: timeout,
			change: func(m *machine) { m.xen("ephemeral0"); m.answer("imds", "mapping", http.StatusInternalServerError, "") },
			want:   []string{"network down", "error: asking which disk is which"}, never: []string{"map"}},
		"Xen, no network": {volumes: store(), a: ours, b: "-", outcome: boot.Locked, result: status.ResultFailed,
			change: func(m *machine) { m.xen("ephemeral0"); m.refuses["network up"] = netup.ErrNoLease },
			want:   []string{"error: asking which disk is which: bringing up the network: no lease", "error: hint: check the subnet"}},

		// What is no reason to fail.
		"network stays up": {volumes: data(), a: ours, result: status.ResultDone, change: refuse("network down", errors.New("device busy")),
			want: []string{"map data", "error: device busy", "info: done in"}},
		"not confined": {volumes: data(), a: ours, result: status.ResultDone, change: refuse("restrict", errors.New("broken seccomp")),
			want: []string{"error: broken seccomp", "map data"}},
		"cannot be confined": {volumes: data(), a: ours, result: status.ResultDone, change: refuse("confine to [A]", confine.ErrUnsupported),
			want: []string{"map data"}, never: []string{"error", "warning"}},
		"cannot be confined, debug": {volumes: data(), a: ours, result: status.ResultDone,
			change: func(m *machine) { m.refuses["restrict"], m.Cmdline = confine.ErrUnsupported, "rd.unlock.debug" },
			want:   []string{"warning: the kernel does not support it", "warning: confined to [A]", "map data", "warning: step disks", "info: done in"}},
		"confined by nobody": {volumes: data(), a: ours, result: status.ResultDone, change: func(m *machine) { m.Restrict, m.Confine = nil, nil },
			want: []string{"map data"}, never: []string{"restrict", "confine"}},

		// The configuration.
		"bad setting": {volumes: data(`colour = "red"`), outcome: boot.BadConfig, result: status.ResultFailed,
			want: []string{"error: ", "error: hint: "}, never: []string{"restrict", "network", "map"}},
		"bad command line": {volumes: data(), outcome: boot.BadConfig, result: status.ResultFailed, change: func(m *machine) { m.Cmdline = "rd.unlock.timeout=soon" },
			want: []string{"error: "}, never: []string{"restrict"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.startWith(t, row.a, row.b)
			if row.change != nil {
				row.change(m)
			}
			m.spoilt(t)
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				outcome := m.Disks(t.Context())
				took := time.Since(start)
				if outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				if took > timeout || row.takes > 0 && (took < row.takes || took >= row.takes+time.Second) {
					t.Errorf("it took %v, want %v of at most %v", took, row.takes, timeout)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
			b := m.status(t)
			if b.Result != row.result {
				t.Errorf("status %q, want %q", b.Result, row.result)
			}
			if (b.Error != "") != (row.result == status.ResultFailed) {
				t.Errorf("the error in the status is %q", b.Error)
			}
		})
	}
}

// TestShares: a volume that is divided is formatted as a whole, and its shares are
// volumes of their own in the status, which are mounted.
func TestShares(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("store", "instance-store", blank)+
		volume("cache", "share:store", `size = "50%"`, `filesystem = "xfs"`, `mount = "/srv/cache"`)+
		volume("db", "share:store", `filesystem = "ext4"`, `mount = "/srv/db"`, `owner = "daemon"`))
	var disks []block.Disk
	for _, name := range []string{"A", "B"} {
		d := m.disk(t, name, "")
		if err := os.Truncate(d.Path, 48<<20); err != nil {
			t.Fatal(err)
		}
		d.Size = 48 << 20
		disks = append(disks, d)
	}
	synctest.Test(t, func(t *testing.T) {
		m.start(disks)
		if outcome := m.Disks(t.Context()); outcome != boot.Done {
			t.Errorf("outcome %d, want %d", outcome, boot.Done)
		}
		m.cloud.Wait()
		if outcome := m.Files(t.Context(), m.dir); outcome != boot.Done {
			t.Errorf("outcome %d, want %d", outcome, boot.Done)
		}
	})
	m.check(t, []string{`info: volume "store": format A (blank), B (blank)`, "map store", "map cache", "map db", `info: volume "cache": /dev/mapper/cache is ready`,
		"mount /dev/mapper/cache on /srv/cache", "mount /dev/mapper/db on /srv/db", "give /srv/db to daemon, mode 0"}, []string{"error", "check", "cover"})
	m.check(t, []string{"make xfs on cache"}, []string{"make xfs on store"})
	m.check(t, []string{"make ext4 on db"}, nil)
	var names []string
	for _, v := range m.status(t).Volumes {
		names = append(names, v.Name+" "+v.Action+" "+v.Mapping)
	}
	if want := []string{"store format /dev/mapper/store", "cache format /dev/mapper/cache", "db format /dev/mapper/db"}; !slices.Equal(names, want) {
		t.Errorf("the status has %q, want %q", names, want)
	}
}

// TestSharesLocked: what is said of the whole is said once, and the places of its shares
// are covered.
func TestSharesLocked(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("store", "serial=A", blank, optional)+volume("db", "share:store", `filesystem = "ext4"`, `mount = "/srv/db"`))
	d := m.disk(t, "A", "")
	if err := os.Truncate(d.Path, 48<<20); err != nil {
		t.Fatal(err)
	}
	d.Size = 48 << 20
	m.refuses["map db"] = errors.New("no memory")
	synctest.Test(t, func(t *testing.T) {
		m.start([]block.Disk{d})
		if outcome := m.Disks(t.Context()); outcome != boot.Done {
			t.Errorf("outcome %d, want %d", outcome, boot.Done)
		}
		m.cloud.Wait()
		if outcome := m.Files(t.Context(), m.dir); outcome != boot.Done {
			t.Errorf("outcome %d, want %d", outcome, boot.Done)
		}
	})
	m.check(t, []string{"map store", "unmap store", `error: volume "store": no memory`, "cover /srv/db"}, []string{"make", "mount", `error: volume "db"`})
}
