package boot_test

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/boot"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/status"
	"unlock/test/pipecloud"
)

// TestFiles holds every way in which the part after the new root is there can end.
func TestFiles(t *testing.T) {
	disk := func(settings ...string) string {
		return volume("data", "serial=A", append([]string{`filesystem = "ext4"`, `mount = "/mnt/data"`}, settings...)...)
	}
	file := func(settings ...string) string {
		return volume("file", "file:/disk.img", append(settings, `size = "17MiB"`, blank, `filesystem = "ext4"`, `mount = "/mnt/file"`)...)
	}
	// What the part before left of the volume data.
	mapped := status.Volume{Name: "data", Action: "open", Mapping: "/dev/mapper/data"}
	failed := status.Volume{Name: "data", Action: "failed"}
	bind := func(path string, settings ...string) string {
		return "[[volume.bind]]\npath = \"" + path + "\"\n" + strings.Join(settings, "\n")
	}
	refuse := func(what string, err error) func(*machine) {
		return func(m *machine) { m.refuses[what] = err }
	}
	// The volume is mapped, with so many sectors.
	active := func(sectors uint64) func(*machine) {
		return func(m *machine) { m.active["data"], m.table = "CRYPT", dm.Table{Sectors: sectors} }
	}
	for name, row := range map[string]struct {
		volumes string
		before  []status.Volume // none: there was nothing to do
		change  func(*machine)
		outcome boot.Outcome
		result  string
		mounts  []string // of the volumes in the status
		want    []string
		never   []string
		checks  []string // of the volumes in the status; nil: not compared
		binds   []string // of the first; likewise
	}{
		"mount": {volumes: disk(`mount_options = "noatime"`), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"},
			want: []string{"mount /dev/mapper/data on /mnt/data noatime"}, never: []string{"info: done in", "network", "confine", "cover"}},
		"cannot be mounted": {volumes: disk(), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""},
			change: refuse("mount /dev/mapper/data on /mnt/data ", errors.New("bad superblock")), want: []string{`error: volume "data": bad superblock`}, never: []string{"cover"}},
		"cannot be mounted, optional": {volumes: disk(optional), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{""},
			change: refuse("mount /dev/mapper/data on /mnt/data ", errors.New("bad superblock")),
			want:   []string{`error: volume "data": bad superblock`, "cover /mnt/data"}},
		"cannot be mounted, reboot": {volumes: disk(reboots), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""},
			change: refuse("mount /dev/mapper/data on /mnt/data ", errors.New("bad superblock")), want: []string{`error: volume "data": bad superblock`}},
		"locked": {volumes: disk(optional), before: []status.Volume{failed}, result: status.ResultDone, mounts: []string{""},
			want: []string{"cover /mnt/data"}, never: []string{"mount"}},
		"cannot be covered": {volumes: disk(optional), before: []status.Volume{failed}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""},
			change: refuse("cover /mnt/data", errors.New("no such directory")), want: []string{`error: volume "data": no such directory`}},
		"several": {volumes: disk() + volume("more", "serial=B", optional, `filesystem = "xfs"`, `mount = "/mnt/more"`), before: []status.Volume{mapped}, outcome: boot.Locked,
			result: status.ResultFailed, mounts: []string{""},
			change: func(m *machine) {
				m.refuses["mount /dev/mapper/data on /mnt/data "] = errors.New("bad superblock")
				m.refuses["cover /mnt/more"] = errors.New("no such directory")
			},
			want: []string{`error: volume "data": bad superblock`, `error: volume "more": no such directory`}},
		"not mounted": {volumes: volume("data", "serial=A"), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{""}, never: []string{"mount"}},
		"no disk":     {volumes: disk(optional), result: status.ResultNothing, want: []string{"cover /mnt/data"}, never: []string{"mount"}},
		"may be absent": {volumes: disk(`absent = "allow"`), before: []status.Volume{{Name: "data", Action: status.ActionAbsent}}, result: status.ResultDone, mounts: []string{""},
			want: []string{"cover /mnt/data"}, never: []string{"mount"}},
		"grows": {volumes: disk("grow = true"), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, change: active(2048),
			want: []string{"mount /dev/mapper/data on /mnt/data", "grow ext4 on /mnt/data to 1048576", `info: volume "data": its file system has grown`}},
		"cannot grow": {volumes: disk("grow = true"), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"},
			change: func(m *machine) {
				active(2048)(m)
				m.refuses["grow ext4 on /mnt/data to 1048576"] = errors.New("no room")
			},
			want: []string{"mount /dev/mapper/data on /mnt/data", `warning: volume "data": no room`}, never: []string{"error"}},
		"locked, does not grow": {volumes: disk(optional, "grow = true"), before: []status.Volume{failed}, result: status.ResultDone, mounts: []string{""}, change: active(2048),
			want: []string{"cover /mnt/data"}, never: []string{"grow"}},
		"does not grow": {volumes: disk(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, change: active(2048), never: []string{"grow"}},
		"skipped": {volumes: disk() + file(), result: status.ResultNothing, change: func(m *machine) { m.Cmdline = "rd.unlock=0" },
			want: []string{"cover /mnt/data", "cover /mnt/file"}, never: []string{"mount", "attach", "warning"}},

		"file": {volumes: file(), result: status.ResultDone, mounts: []string{"/mnt/file"},
			want: []string{"attach /disk.img", "network up", "map file", "mount /dev/mapper/file on /mnt/file", "network down", "info: done in 0.0"}},
		"file and disk": {volumes: disk() + file(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data", "/mnt/file"},
			want: []string{"attach /disk.img", "map file", "mount /dev/mapper/data on /mnt/data", "mount /dev/mapper/file on /mnt/file"}, never: []string{"info: done in"}},
		"no file": {volumes: file(), outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""}, change: refuse("attach /disk.img", fsys.ErrNoFile),
			want: []string{`error: volume "file": no such file`, "error: hint: the root file system must be writable"}, never: []string{"network", "mount"}},
		"no file, optional": {volumes: file(optional), result: status.ResultDone, mounts: []string{""}, change: refuse("attach /disk.img", fsys.ErrNoFile),
			want: []string{`error: volume "file": no such file`, "cover /mnt/file", "info: done in"}},
		"no file, reboot": {volumes: file(reboots), outcome: boot.Reboot, result: status.ResultFailed, mounts: []string{""}, change: refuse("attach /disk.img", fsys.ErrNoFile),
			want: []string{`error: volume "file": no such file`}},

		"checked": {volumes: disk(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, checks: []string{fsys.Recovered},
			change: func(m *machine) { m.found = fsys.Recovered },
			want:   []string{"check ext4 on /dev/mapper/data", `warning: volume "data": file system of /dev/mapper/data: journal recovered`, "mount"}},
		"clean": {volumes: disk(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, checks: []string{fsys.Clean},
			want: []string{"check ext4", "mount"}, never: []string{"warning"}},
		"a check that takes long": {volumes: disk(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, checks: []string{fsys.Clean},
			change: func(m *machine) { m.minutes = 30 }, want: []string{"check ext4", "mount"}},
		"a check that stands still": {volumes: disk(), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""},
			change: func(m *machine) { m.minutes, m.silent = 2, true }, want: []string{`error: volume "data": context`}, never: []string{"mount"}},
		"made in this boot": {volumes: disk(), before: []status.Volume{{Name: "data", Action: "format", Mapping: "/dev/mapper/data"}}, result: status.ResultDone,
			mounts: []string{"/mnt/data"}, want: []string{"mount"}, never: []string{"check"}},
		"not checked": {volumes: disk(), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"}, checks: []string{fsys.NotChecked},
			change: func(m *machine) { m.Cmdline = "fsck.mode=skip" }, want: []string{"warning: ", "mount"}, never: []string{"check"}},
		"damaged": {volumes: disk(), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{""},
			change: refuse("check ext4 on /dev/mapper/data", fsys.ErrDamaged), checks: []string{fsys.ErrDamaged.Error()},
			want: []string{`error: volume "data": its file system has errors`, "error: hint: boot once with fsck.repair=yes"}, never: []string{"mount"}},
		"damaged, optional": {volumes: disk(optional), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{""},
			change: refuse("check ext4 on /dev/mapper/data", fsys.ErrDamaged), want: []string{`error: volume "data"`, "cover /mnt/data"}, never: []string{"mount"}},
		"xfs looks after itself": {volumes: volume("data", "serial=A", `filesystem = "xfs"`, `mount = "/mnt/data"`), before: []status.Volume{mapped}, result: status.ResultDone,
			mounts: []string{"/mnt/data"}, want: []string{"mount"}, never: []string{"check"}},

		"owner": {volumes: disk(blank, `owner = "postgres"`, `mode = "0700"`), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"},
			want: []string{"mount", "give /mnt/data to postgres, mode 700"}},
		"no such owner": {volumes: disk(blank, `owner = "postgres"`), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{"/mnt/data"},
			change: refuse("give /mnt/data to postgres, mode 0", errors.New("not in /etc/passwd")), want: []string{`error: volume "data": not in /etc/passwd`}},
		"binds": {volumes: disk(bind("/var/lib/kubelet/pods"), bind("/var/lib/kubelet", "seed = true")), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"},
			want:  []string{"mount", "bind /mnt/data/kubelet on /var/lib/kubelet, seed true", "bind /mnt/data/pods on /var/lib/kubelet/pods, seed false"},
			binds: []string{"/var/lib/kubelet", "/var/lib/kubelet/pods"}},
		"bind fails": {volumes: disk(bind("/srv/a")), before: []status.Volume{mapped}, outcome: boot.Locked, result: status.ResultFailed, mounts: []string{"/mnt/data"},
			change: refuse("bind /mnt/data/a on /srv/a, seed false", errors.New("no space")), want: []string{"mount", `error: volume "data": no space`}, never: []string{"cover"}},
		"bind fails, optional": {volumes: disk(optional, bind("/srv/a"), bind("/srv/b")), before: []status.Volume{mapped}, result: status.ResultDone, mounts: []string{"/mnt/data"},
			change: refuse("bind /mnt/data/a on /srv/a, seed false", errors.New("no space")),
			want:   []string{`error: volume "data": no space`, "cover /srv/a", "bind /mnt/data/b"}, binds: []string{"/srv/b"}},
		"binds of what is locked": {volumes: disk(optional, bind("/srv/a")), before: []status.Volume{failed}, result: status.ResultDone, mounts: []string{""},
			want: []string{"cover /mnt/data", "cover /srv/a"}, never: []string{"bind"}},
		"binds, skipped": {volumes: disk(bind("/srv/a")), result: status.ResultNothing, change: func(m *machine) { m.Cmdline = "rd.unlock=0" },
			want: []string{"cover /mnt/data", "cover /srv/a"}, never: []string{"bind"}},

		"bad configuration": {volumes: disk(`colour = "red"`), before: []status.Volume{mapped}, outcome: boot.BadConfig, result: status.ResultFailed, mounts: []string{""},
			want: []string{"error: ", "error: hint: "}, never: []string{"mount"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			m.disk(t, "disk.img", pipecloud.Passphrase)
			before := &status.Boot{Version: "before", Started: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), Result: status.ResultNothing, Volumes: row.before, Steps: []status.Step{{Name: "disks"}}}
			if len(row.before) > 0 {
				before.Result = status.ResultDone
			}
			if err := status.Write(m.Status, before); err != nil {
				t.Fatal(err)
			}
			if row.change != nil {
				row.change(m)
			}
			synctest.Test(t, func(t *testing.T) {
				if outcome := m.Files(t.Context(), m.dir); outcome != row.outcome {
					t.Errorf("outcome %d, want %d", outcome, row.outcome)
				}
				m.cloud.Wait()
			})
			m.check(t, row.want, row.never)
			b := m.status(t)
			if b.Result != row.result || b.Version != "before" || b.Steps[0].Name != "disks" {
				t.Errorf("status = %+v, want result %q and all that was in it before", b, row.result)
			}
			var mounts []string
			for _, v := range b.Volumes {
				mounts = append(mounts, v.Mount)
			}
			for i, want := range row.checks {
				if got := b.Volumes[i].Check; got != want {
					t.Errorf("check of volume %d: %q, want %q", i, got, want)
				}
			}
			if row.binds != nil && !slices.Equal(b.Volumes[0].Binds, row.binds) {
				t.Errorf("binds are %q, want %q", b.Volumes[0].Binds, row.binds)
			}
			if !slices.Equal(mounts, row.mounts) {
				t.Errorf("mounted on %q, want %q", mounts, row.mounts)
			}
		})
	}
}

// TestFilesAgain: a part that failed is done again; what was mounted stays, and the
// status says nothing of the failure any more.
func TestFilesAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`)+volume("more", "serial=B", `filesystem = "ext4"`, `mount = "/mnt/more"`))
	if err := status.Write(m.Status, &status.Boot{Result: status.ResultDone, Volumes: []status.Volume{
		{Name: "data", Mapping: "/dev/mapper/data"}, {Name: "more", Mapping: "/dev/mapper/more"},
	}}); err != nil {
		t.Fatal(err)
	}
	const second = "mount /dev/mapper/more on /mnt/more "
	m.refuses[second] = errors.New("bad superblock")
	if outcome := m.Files(t.Context(), m.dir); outcome != boot.Locked {
		t.Fatalf("outcome %d, want %d", outcome, boot.Locked)
	}
	delete(m.refuses, second)
	m.refuses["mount /dev/mapper/data on /mnt/data "] = errors.New("busy: it is mounted already")
	if outcome := m.Files(t.Context(), m.dir); outcome != boot.Done {
		t.Errorf("the second time: outcome %d, want %d", outcome, boot.Done)
	}
	if b := m.status(t); b.Result != status.ResultDone || b.Error != "" || b.Volumes[0].Mount != "/mnt/data" || b.Volumes[1].Mount != "/mnt/more" {
		t.Errorf("status = %+v", b)
	}
}

// TestBindAgain: what was bound stays, what was not is bound.
func TestBindAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`, `[[volume.bind]]`, `path = "/srv/a"`, `[[volume.bind]]`, `path = "/srv/b"`))
	if err := status.Write(m.Status, &status.Boot{Result: status.ResultDone, Volumes: []status.Volume{{Name: "data", Mapping: "/dev/mapper/data"}}}); err != nil {
		t.Fatal(err)
	}
	const second = "bind /mnt/data/b on /srv/b, seed false"
	m.refuses[second] = errors.New("no space")
	if outcome := m.Files(t.Context(), m.dir); outcome != boot.Locked {
		t.Fatalf("outcome %d, want %d", outcome, boot.Locked)
	}
	delete(m.refuses, second)
	m.refuses["bind /mnt/data/a on /srv/a, seed false"] = errors.New("it is bound already")
	if outcome := m.Files(t.Context(), m.dir); outcome != boot.Done {
		t.Errorf("the second time: outcome %d, want %d", outcome, boot.Done)
	}
	if got := m.status(t).Volumes[0].Binds; !slices.Equal(got, []string{"/srv/a", "/srv/b"}) {
		t.Errorf("binds are %q", got)
	}
}

// TestFilesWithoutStatus must not go on where nobody knows what was done before.
func TestFilesWithoutStatus(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]string{"none": "", "not readable as JSON": "{"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`))
			m.Status = m.file("status.json")
			if left != "" {
				m.write(t, "status.json", []byte(left))
			}
			if outcome := m.Files(t.Context(), m.dir); outcome != boot.Locked {
				t.Errorf("outcome %d, want %d", outcome, boot.Locked)
			}
			m.check(t, []string{"error: reading status"}, []string{"mount", "cover"})
		})
	}
}

// TestStatusCannotBeLeft is reported; the volumes are what they are.
func TestStatusCannotBeLeft(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A", optional))
	if err := os.WriteFile(m.file("run"), nil, 0o600); err != nil { // where its directory should be
		t.Fatal(err)
	}
	m.start(nil)
	if outcome := m.Disks(t.Context()); outcome != boot.Done {
		t.Errorf("outcome %d, want %d", outcome, boot.Done)
	}
	m.check(t, []string{"info: no disk", "error: writing status"}, nil)
}
