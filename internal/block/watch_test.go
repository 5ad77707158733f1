package block

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeEvents is an eventSource that the test feeds.
type fakeEvents struct {
	events chan error // nil for an event, else what wait fails with
	closed bool
}

func (e *fakeEvents) wait(ctx context.Context) error {
	select {
	case err := <-e.events:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *fakeEvents) Close() error {
	e.closed = true
	return nil
}

// nvme is the spec of an NVMe controller, by what it has so far.
func nvme(n int, state string, namespace bool) string {
	spec := fmt.Sprintf("devices/pci/000%d/class: 0x010802\nbus/pci/devices/000%[1]d -> ../../../devices/pci/000%[1]d\n", n)
	if state != "" {
		spec += fmt.Sprintf("devices/pci/000%d/nvme/nvme%[1]d/state: %s\n", n, state)
	}
	if namespace {
		name := fmt.Sprintf("nvme%dn1", n)
		spec += fmt.Sprintf("devices/pci/000%d/nvme/nvme%[1]d/%s/.:\n", n, name) + disk(name)
	}
	return spec
}

func TestProbing(t *testing.T) {
	const (
		virtioPCI = "bus/pci/devices/0005/class: 0x010000\nbus/pci/devices/0005/vendor: 0x1af4\nbus/pci/devices/0005/device: 0x1042\n"
		virtioBlk = "bus/virtio/devices/virtio0/device: 0x0002\n"
		xenVBD    = "bus/xen/devices/vbd-51712/nodename: device/vbd/51712\n"
	)
	for _, test := range []struct {
		name, spec string
		want       probeState
	}{
		{"no controllers", "class/block/.:", probed},
		{"other PCI functions", "bus/pci/devices/0001/class: 0x020000", probed},
		{"other virtio functions", "bus/pci/devices/0001/class: 0x020000\nbus/pci/devices/0001/vendor: 0x1af4\nbus/pci/devices/0001/device: 0x1041", probed},
		{"other virtio devices", "bus/virtio/devices/virtio0/device: 0x0001", probed},
		{"NVMe without driver", nvme(0, "", false), stuck},
		{"NVMe new", nvme(0, "new", false), working},
		{"NVMe connecting", nvme(0, "connecting", false), working},
		{"NVMe resetting, with its disk", nvme(0, "resetting", true), working},
		{"NVMe dead", nvme(0, "dead", false), stuck},
		{"NVMe without namespace", nvme(0, "live", false), stuck},
		{"NVMe with namespace", nvme(0, "live", true), probed},
		{"NVMe whose namespace is not yet complete", nvme(0, "live", false) + "devices/pci/0000/nvme/nvme0/nvme0n1/.:\nclass/block/nvme0n1/dev: 259:0", stuck},
		{"NVMe with other children", nvme(0, "live", false) + "devices/pci/0000/nvme/nvme0/hwmon1/.:\ndevices/pci/0000/nvme/nvme0/ng0n1/.:\n" + disk("nvme0n1"), stuck},
		{"NVMe multipath", nvme(0, "live", false) + "devices/pci/0000/nvme/nvme0/nvme7c0n1/.:\n" + disk("nvme7n1"), probed},
		{"NVMe multipath without head", nvme(0, "live", false) + "devices/pci/0000/nvme/nvme0/nvme7c0n1/.:\n" + disk("nvme0n1"), stuck},
		{"two NVMe, one live", nvme(0, "live", true) + nvme(1, "", false), stuck},
		{"two NVMe, one stuck, one working", nvme(0, "", false) + nvme(1, "new", false), working},
		{"virtio-blk without virtio-pci", virtioPCI, stuck},
		{"virtio-blk with virtio-pci only", virtioPCI + "bus/pci/devices/0005/driver/.:\n" + virtioBlk, stuck},
		{"virtio-blk", virtioPCI + "bus/pci/devices/0005/driver/.:\n" + virtioBlk + "bus/virtio/devices/virtio0/block/vda/.:\n" + disk("vda"), probed},
		{"Xen without driver", xenVBD, stuck},
		{"Xen", xenVBD + "bus/xen/devices/vbd-51712/block/xvda/.:\n" + disk("xvda"), probed},
	} {
		sys := t.TempDir()
		tree(t, sys, test.spec)
		if got := (&Finder{Sys: sys}).probing(); got != test.want {
			t.Errorf("%s: probing = %d, want %d", test.name, got, test.want)
		}
	}
}

// TestWatch follows disks that come and go. Each step changes sysfs and sends an
// event; look must be called as the step says, at the time it says.
func TestWatch(t *testing.T) {
	type step struct {
		after time.Duration // since the step before
		add   string
		gone  string // an entry of class/block
	}
	type call struct {
		at      time.Duration
		disks   string
		settled bool
	}
	for _, test := range []struct {
		name  string
		start string
		steps []step
		want  []call
	}{
		{"all there", nvme(0, "live", true), nil,
			[]call{{0, "nvme0n1", true}}},
		{"no disks at all", "class/block/.:", nil,
			[]call{{0, "", true}}},
		{"late disk", nvme(0, "live", true) + nvme(1, "new", false),
			[]step{{after: 7 * time.Second, add: nvme(1, "live", true)}},
			[]call{{0, "nvme0n1", false}, {7 * time.Second, "nvme0n1 nvme1n1", true}}},
		{"slow controller is awaited though all is quiet", "class/block/.:\n" + nvme(0, "connecting", false),
			[]step{{after: 50 * time.Second, add: nvme(0, "live", true)}},
			[]call{{0, "", false}, {50 * time.Second, "nvme0n1", true}}},
		{"without driver", "class/block/.:\n" + nvme(0, "", false), nil,
			[]call{{0, "", false}, {quiet, "", true}}},
		{"without namespace, with events in between", "class/block/.:\n" + nvme(0, "live", false),
			[]step{{after: quiet - 1}, {after: quiet - 1}, {after: quiet - 1, add: disk("sda")}},
			[]call{{0, "", false}, {3*quiet - 3, "sda", false}, {4*quiet - 3, "sda", true}}},
		{"driver comes after it was given up", "class/block/.:\n" + nvme(0, "", false),
			[]step{{after: time.Minute, add: nvme(0, "new", false)}, {after: time.Second, add: nvme(0, "live", true)}},
			[]call{{0, "", false}, {quiet, "", true}, {61 * time.Second, "nvme0n1", true}}},
		{"attached and detached later", nvme(0, "live", true),
			[]step{{after: time.Hour, add: nvme(1, "live", true)}, {after: time.Hour, gone: "nvme1n1"}},
			[]call{{0, "nvme0n1", true}, {time.Hour, "nvme0n1 nvme1n1", true}, {2 * time.Hour, "nvme0n1", true}}},
		{"events that change nothing", nvme(0, "live", true),
			[]step{{after: time.Second}, {after: time.Second}},
			[]call{{0, "nvme0n1", true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			sys := t.TempDir()
			tree(t, sys, test.start)
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				source := &fakeEvents{events: make(chan error)}
				f := &Finder{Sys: sys, Dev: sys, subscribe: func() (eventSource, error) { return source, nil }}
				begin := time.Now()
				var got []call
				ended := make(chan error)
				go func() {
					ended <- f.Watch(ctx, func(disks []Disk, settled bool) bool {
						var names []string
						for _, d := range disks {
							names = append(names, d.Name)
						}
						got = append(got, call{time.Since(begin), strings.Join(names, " "), settled})
						return false
					})
				}()
				for _, s := range test.steps {
					time.Sleep(s.after)
					tree(t, sys, s.add)
					if s.gone != "" {
						must(t, os.RemoveAll(filepath.Join(sys, "class/block", s.gone)))
					}
					source.events <- nil
				}
				time.Sleep(time.Minute)
				cancel()
				err := <-ended
				if !errors.Is(err, context.Canceled) || !source.closed {
					t.Errorf("Watch = %v, events closed: %t", err, source.closed)
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("look was called with\n%+v, want\n%+v", got, test.want)
				}
			})
		})
	}
}

func TestWatchEnds(t *testing.T) {
	sys := t.TempDir()
	tree(t, sys, nvme(0, "live", true))
	lost := errors.New("socket lost")
	for _, test := range []struct {
		name string
		sys  string
		done bool
		err  error // of the event source
		want string
	}{
		{"look is content", sys, true, nil, ""},
		{"events fail", sys, false, lost, "listening for block devices: socket lost"},
		{"no sysfs", t.TempDir(), false, nil, "listing block devices: "},
	} {
		source := &fakeEvents{events: make(chan error, 1)}
		source.events <- test.err
		f := &Finder{Sys: test.sys, Dev: sys, subscribe: func() (eventSource, error) { return source, nil }}
		err := f.Watch(t.Context(), func([]Disk, bool) bool { return test.done })
		if got := fmt.Sprint(err); test.want == "" && err != nil || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: Watch = %v, want %q", test.name, err, test.want)
		}
		if !source.closed {
			t.Errorf("%s: events were not closed", test.name)
		}
	}
	f := &Finder{subscribe: func() (eventSource, error) { return nil, unix.EPROTONOSUPPORT }}
	if err := f.Watch(t.Context(), nil); !errors.Is(err, unix.EPROTONOSUPPORT) {
		t.Errorf("Watch = %v, want %v", err, unix.EPROTONOSUPPORT)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 0, errors.New("no disks after 5 min"))
	defer cancel()
	f = &Finder{Sys: sys, Dev: sys}
	if err := f.Watch(ctx, func([]Disk, bool) bool { return false }); err == nil || err.Error() != "waiting for block devices: no disks after 5 min" {
		t.Errorf("Watch = %v, want the cause", err)
	}
}

// TestUeventsCancel uses the kernel's socket, on which nothing need come.
func TestUeventsCancel(t *testing.T) {
	s, err := listenUevents()
	must(t, err)
	defer s.Close()
	for range 50 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		// An event of this machine may come first.
		if err := s.wait(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait = %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
	}
}

// TestUevents has the kernel send events, and more of them than it can keep.
func TestUevents(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can have the kernel send events")
	}
	const trigger = "/sys/class/block/loop0/uevent"
	if err := os.WriteFile(trigger, []byte("change"), 0); err != nil {
		t.Skip("cannot have the kernel send events: ", err) // in a container
	}
	source, err := listenUevents()
	must(t, err)
	defer source.Close()
	s := source.(*ueventSource)
	conn, err := s.sock.SyscallConn()
	must(t, err)
	var bufErr error
	must(t, conn.Control(func(fd uintptr) { bufErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) }))
	must(t, bufErr)
	for _, count := range []int{1, 3, 500} {
		// A wait that ended must not keep the next from hearing anything.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("wait = %v, want %v", err, context.Canceled)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
		if err := s.wait(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait = %v, want %v", err, context.DeadlineExceeded)
		}
		cancel()
		for range count {
			must(t, os.WriteFile(trigger, []byte("change"), 0))
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		if err := s.wait(ctx); err != nil {
			t.Errorf("wait after %d events = %v", count, err)
		}
		cancel()
	}
}

// TestUeventsForged: what another process sends is not believed.
func TestUeventsForged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may send to the sockets of others")
	}
	source, err := listenUevents()
	must(t, err)
	defer source.Close()
	conn, err := source.(*ueventSource).sock.SyscallConn()
	must(t, err)
	var port *unix.SockaddrNetlink
	must(t, conn.Control(func(fd uintptr) {
		if name, err := unix.Getsockname(int(fd)); err == nil {
			port, _ = name.(*unix.SockaddrNetlink)
		}
	}))
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	must(t, err)
	defer unix.Close(fd)
	err = unix.Sendto(fd, []byte("add@/x\x00SUBSYSTEM=block\x00"), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port.Pid})
	if err == unix.EPERM {
		t.Skip("not allowed to send: ", err) // in a container
	}
	must(t, err)
	if relevant, err := source.(*ueventSource).read(); relevant || err != nil {
		t.Errorf("read of a forged event = %t, %v, want false", relevant, err)
	}
}

func TestConcernsDisks(t *testing.T) {
	for event, want := range map[string]bool{
		"add@/devices/pci/nvme1n1\x00ACTION=add\x00SUBSYSTEM=block\x00SEQNUM=1\x00": true,
		"bind@/devices/pci\x00ACTION=bind\x00SUBSYSTEM=pci\x00":                     true,
		"add@/module/xfs\x00ACTION=add\x00SUBSYSTEM=module\x00":                     false,
		"add@/x\x00ACTION=add\x00SUBSYSTEM=blocks\x00":                              false,
		"": false,
	} {
		if got := concernsDisks([]byte(event)); got != want {
			t.Errorf("concernsDisks(%q) = %t, want %t", event, got, want)
		}
	}
}
