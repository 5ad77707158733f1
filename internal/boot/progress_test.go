package boot_test

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/fsys"
	"unlock/internal/hint"
	"unlock/internal/status"
)

// TestFollow: the deadline holds against a part that says nothing any more, but not
// while somebody is asked.
func TestFollow(t *testing.T) {
	said := func(lines ...string) func(w io.Writer) {
		return func(w io.Writer) { io.WriteString(w, strings.Join(lines, "\n")+"\n") }
	}
	wait := func(d time.Duration) func(io.Writer) { return func(io.Writer) { <-time.After(d) } }
	for name, row := range map[string]struct {
		says    []func(io.Writer)
		ends    bool // and then closes its end
		outcome boot.Outcome
		want    string // part of the error; "" if there is none
		takes   time.Duration
	}{
		"done":              {says: []func(io.Writer){said("deadline 60000", "begin open nvme1n1", "end open nvme1n1", "outcome 0")}},
		"reboot":            {says: []func(io.Writer){said("deadline 60000", "outcome 3")}, outcome: boot.Reboot},
		"no such outcome":   {says: []func(io.Writer){said("outcome 17")}, outcome: boot.Locked},
		"not a number":      {says: []func(io.Writer){said("otherwise 3", "outcome x")}, outcome: boot.Done},
		"crash":             {says: []func(io.Writer){said("deadline 60000", "otherwise 0", "begin open nvme1n1")}, ends: true, outcome: boot.Locked, want: "broke down"},
		"nothing, and ends": {ends: true, outcome: boot.Locked, want: "broke down"},
		"late, but in grace": {says: []func(io.Writer){said("deadline 60000"), wait(61 * time.Second), said("outcome 1")}, outcome: boot.Locked,
			takes: 61 * time.Second},
		"stalls": {says: []func(io.Writer){said("deadline 60000", "begin disks", "begin open nvme1n1", "begin open nvme2n1", "end open nvme2n1")}, outcome: boot.Locked,
			want: "nvme1n1 did not answer within the deadline: given up at open", takes: 62 * time.Second},
		"stalls, two": {says: []func(io.Writer){said("deadline 60000", "begin open nvme1n1", "begin mkfs data")}, outcome: boot.Locked,
			want: "data did not answer within the deadline: given up at mkfs\nnvme1n1 did not", takes: 62 * time.Second},
		"stalls, nobody knows where": {says: []func(io.Writer){said("deadline 60000", "begin disks")}, outcome: boot.Locked,
			want: "a disk did not answer within the deadline: given up at disks", takes: 62 * time.Second},
		"stalls, optional": {says: []func(io.Writer){said("deadline 60000", "otherwise 1", "begin open nvme1n1", "otherwise 0")}, outcome: boot.Done,
			want: "nvme1n1 did not answer", takes: 62 * time.Second},
		"stalls, policy": {says: []func(io.Writer){said("deadline 60000", "otherwise 3", "begin open nvme1n1")}, outcome: boot.Reboot,
			want: "nvme1n1 did not answer", takes: 62 * time.Second},
		"asks for an hour": {says: []func(io.Writer){said("deadline 60000", "deadline 0"), wait(time.Hour), said("deadline 60000", "outcome 0")},
			takes: time.Hour},
		"stalls after the answer": {says: []func(io.Writer){said("deadline 60000", "deadline 0"), wait(time.Hour), said("deadline 60000", "begin open nvme1n1")},
			outcome: boot.Locked, want: "nvme1n1 did not answer", takes: time.Hour + 62*time.Second},
		"an endless line": {says: []func(io.Writer){said("deadline 60000", strings.Repeat("x", 1<<20))}, ends: true, outcome: boot.Locked, want: "broke down"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				defer r.Close()
				go func() {
					for _, say := range row.says {
						say(w)
					}
					if row.ends {
						w.Close()
					}
				}()
				start := time.Now()
				outcome, _, err := boot.Follow(r)
				if outcome != row.outcome || (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
					t.Errorf("Follow = %v, %v; want %v, %q", outcome, err, row.outcome, row.want)
				}
				if took := time.Since(start); took != row.takes {
					t.Errorf("took %v, want %v", took, row.takes)
				}
				if strings.Contains(row.want, "answer") && hint.Of(err) != hint.DiskFails {
					t.Errorf("hint %q", hint.Of(err))
				}
			})
		})
	}
}

// TestStalls: a disk that answers nothing any more after the plan was made does not
// outlast the deadline, and what is left of the boot goes by the failure policy of
// its volume.
func TestStalls(t *testing.T) {
	stall := func(what string) func(*machine) {
		return func(m *machine) { m.stalls = what }
	}
	for name, row := range map[string]struct {
		volumes string
		change  func(*machine)
		outcome boot.Outcome
		result  string
		want    string
	}{
		"required": {volume("data", "serial=A", blank, `filesystem = "ext4"`), stall("make ext4 on data"), boot.Locked, status.ResultFailed, "data did not answer within the deadline: given up at mkfs"},
		"mapping":  {volume("data", "serial=A", blank), stall("map data"), boot.Locked, status.ResultFailed, "A did not answer within the deadline: given up at open"},
		"reboots":  {volume("data", "serial=A", blank, reboots), stall("map data"), boot.Reboot, status.ResultFailed, "A did not answer"},
		"optional": {volume("data", "serial=A", blank, optional) + volume("more", "serial=B", blank), stall("map data"), boot.Done, status.ResultDone, "A did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, row.volumes)
			a, b := m.disk(t, "A", ""), m.disk(t, "B", "")
			synctest.Test(t, func(t *testing.T) {
				m.attach = []event{{disks: []block.Disk{a, b}, settled: true}}
				m.never = make(chan struct{})
				row.change(m)
				r, w := io.Pipe()
				m.Progress = boot.NewProgress(w)
				go func() { m.Progress.Outcome(m.Disks(t.Context())) }()
				start := time.Now()
				outcome, _, err := boot.Follow(r)
				r.Close()
				if outcome != row.outcome || err == nil || !strings.Contains(err.Error(), row.want) {
					t.Errorf("Follow = %v, %v; want %v, %q", outcome, err, row.outcome, row.want)
				}
				if took := time.Since(start); took < timeout || took > timeout+5*time.Second {
					t.Errorf("given up after %v, the deadline is %v", took, timeout)
				}
				s, err := status.Read(m.Status)
				if err != nil || s.Result != row.result {
					t.Errorf("status %+v, %v; want %s", s, err, row.result)
				}
				close(m.never) // the disk comes back, for the test to end
			})
		})
	}
}

// TestFilesStall: what was mounted before a disk stopped answering is on record, so that
// the next try neither mounts it again nor fails in that.
func TestFilesStall(t *testing.T) {
	t.Parallel()
	m := newMachine(t, volume("data", "serial=A", `filesystem = "ext4"`, `mount = "/mnt/data"`, "[[volume.bind]]", `path = "/srv/a"`, "[[volume.bind]]", `path = "/srv/b"`))
	if err := status.Write(m.Status, &status.Boot{Result: status.ResultDone, Volumes: []status.Volume{{Name: "data", Action: "open", Mapping: "/dev/mapper/data"}}}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		m.never, m.stalls = make(chan struct{}), "bind /mnt/data/b on /srv/b, seed false"
		r, w := io.Pipe()
		m.Progress = boot.NewProgress(w)
		go func() { m.Progress.Outcome(m.Files(t.Context(), m.dir)) }()
		outcome, _, err := boot.Follow(r)
		r.Close()
		if outcome != boot.Locked || err == nil || !strings.Contains(err.Error(), "/srv/b did not answer within the deadline: given up at bind") {
			t.Errorf("Follow = %v, %v", outcome, err)
		}
		v := m.status(t).Volumes[0]
		close(m.never)
		synctest.Wait()
		if v.Mount != "/mnt/data" || !slices.Equal(v.Binds, []string{"/srv/a"}) || v.Check != fsys.Clean {
			t.Errorf("the status has %+v", v)
		}
	})
}
