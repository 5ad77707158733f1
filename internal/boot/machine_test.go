package boot_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/luks"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/test/pipecloud"
)

const (
	diskSize = 17 << 20
	timeout  = time.Minute // of each configuration here
	recovery = "recovery-passphrase-of-the-operator"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // as cmd/unlock does
	os.Exit(m.Run())
}

// machine is an instance with an EC2 around it. It writes down in order what the boot
// says and what it asks of its surroundings.
type machine struct {
	*boot.Machine
	dir     string
	cloud   *pipecloud.Cloud
	attach  []event // what comes when
	refuses map[string]error
	active  map[string]string // name → UUID of mappings that are there before
	table   dm.Table          // theirs
	noFile  bool              // that of a volume in a file is still to be made
	mounts  []fsys.MountPoint // where they are mounted
	answers []string          // of the operator; none: nobody is there
	stalls  string            // what does not end
	never   chan struct{}     // before this is closed
	spoil   string            // a file that holds nothing of use
	minutes int               // that looking a file system over takes, about
	silent  bool              // and says nothing meanwhile
	found   string            // by who looks a file system over; "": it is clean
	slow    time.Duration     // that each takes of what is asked for

	mu      sync.Mutex
	journal []string
}

// event is a change among the disks.
type event struct {
	after   time.Duration // since the one before
	disks   []block.Disk
	settled bool
}

func newMachine(t *testing.T, volumes string) *machine {
	t.Helper()
	authority, err := pipecloud.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{dir: t.TempDir(), cloud: &pipecloud.Cloud{Authority: authority}, refuses: map[string]error{}, active: map[string]string{}}
	m.write(t, "ca.pem", authority.PEM())
	m.write(t, "unlock.toml", fmt.Appendf(nil, `timeout = "1m"
[aws]
ca_bundle = %q
[key]
source  = "s3://bucket/object"
kms_key = %q
[key.context]
purpose = "test"
%s`, m.file("ca.pem"), pipecloud.KeyARN, volumes))
	m.Machine = &boot.Machine{
		Version: "test", Config: m.file("unlock.toml"), Status: m.file("run/status.json"),
		Log: m.log, Prompt: m.prompt, Watch: m.watch, Network: m.up, Kernel: kernel{m},
		Restrict: func() error { return m.ask("restrict") },
		Confine: func(disks []string) error {
			for i, d := range disks {
				disks[i] = filepath.Base(d)
			}
			return m.ask("confine to %v", disks)
		},
	}
	return m
}

// volume is a [[volume]] with further settings, a line each.
func volume(name, device string, settings ...string) string {
	return fmt.Sprintf("[[volume]]\nname = %q\ndevice = %q\n%s\n", name, device, strings.Join(settings, "\n"))
}

func (m *machine) file(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(m.file(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// rewrite changes the configuration.
func (m *machine) rewrite(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	m.write(t, "unlock.toml", bytes.Replace(text, []byte(from), []byte(to), 1))
}

// disk makes a disk that holds nothing, or data, or a volume that the passphrase opens.
func (m *machine) disk(t *testing.T, serial, content string) block.Disk {
	t.Helper()
	data := ""
	if content == "data" {
		data = "somebody's data"
	}
	m.write(t, serial, []byte(data))
	if err := os.Truncate(m.file(serial), diskSize); err != nil {
		t.Fatal(err)
	}
	if content != "data" && content != "" {
		m.format(t, serial, content)
	}
	return block.Disk{Name: serial, Path: m.file(serial), Size: diskSize, SectorSize: 512, Kind: block.KindInstanceStore, Serial: serial}
}

func (m *machine) format(t *testing.T, name, passphrase string) {
	t.Helper()
	f, err := os.OpenFile(m.file(name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pass := secret.Take([]byte(passphrase))
	defer pass.Wipe()
	deriver := luks.NewDeriver(pass)
	defer deriver.Wipe()
	if _, err := luks.FormatWith(f, diskSize, deriver, luks.FormatOptions{UUID: uuid, SectorSize: 512}); err != nil {
		t.Fatal(err)
	}
}

const uuid = "0a1b2c3d-0000-4000-8000-00000000000f"

func (m *machine) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.journal = append(m.journal, fmt.Sprintf(format, args...))
}

// ask notes what the boot asks for, which m.refuses may refuse.
func (m *machine) ask(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if err := m.refuses[what]; err != nil {
		return err
	}
	if what == m.stalls {
		<-m.never
	}
	<-time.After(m.slow)
	m.note("%s", what)
	return nil
}

func (m *machine) log(l boot.Level, line string) {
	m.note("%s: %s", map[boot.Level]string{boot.LevelError: "error", boot.LevelWarning: "warning", boot.LevelInfo: "info"}[l], line)
}

func (m *machine) prompt(question string) (*secret.Bytes, error) {
	m.note("%s", question)
	<-time.After(m.slow)
	if len(m.answers) == 0 {
		return nil, errors.New("nobody is at the console")
	}
	answer := m.answers[0]
	m.answers = m.answers[1:]
	return secret.Take([]byte(answer)), nil
}

func (m *machine) watch(ctx context.Context, look func([]block.Disk, bool) bool) error {
	if err := m.refuses["watch"]; err != nil {
		return err
	}
	for _, e := range m.attach {
		select {
		case <-time.After(e.after):
		case <-ctx.Done():
			return ctx.Err()
		}
		if look(e.disks, e.settled) {
			return nil
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (m *machine) up(ctx context.Context, w boot.Wanted) (boot.Network, error) {
	if err := m.ask("network up"); err != nil {
		return nil, err
	}
	w.Early(network{m})
	return network{m}, w.Reach(ctx, netip.MustParseAddr("169.254.169.254"), m.cloud.Dial)
}

type network struct{ m *machine }

func (n network) Dial(ctx context.Context, kind, addr string) (net.Conn, error) {
	return n.m.cloud.Dial(ctx, kind, addr)
}

func (n network) Families() (four, six bool) { return true, false }

func (n network) Rinse(context.Context) { n.m.note("rinse") }
func (n network) Down() error           { return n.m.ask("network down") }

// kernel maps and mounts nothing, but notes it.
type kernel struct{ m *machine }

func (k kernel) Create(name, uuid string, _ dm.Target, _ dm.Options) (dm.Device, error) {
	err := k.m.ask("map %s", name)
	if err == nil {
		k.m.mu.Lock()
		defer k.m.mu.Unlock()
		k.m.active[name] = uuid
	}
	return dm.Device{Name: name}, err
}

func (k kernel) Lookup(name string) (dm.Device, bool, error) {
	k.m.mu.Lock()
	defer k.m.mu.Unlock()
	id, ok := k.m.active[name]
	return dm.Device{Name: name, UUID: id, Table: k.m.table}, ok, nil
}

func (k kernel) Remove(name string) error { return k.m.ask("unmap %s", name) }

func (k kernel) MakeFS(_ context.Context, d dm.Device, fstype string, _ ...string) error {
	return k.m.ask("make %s on %s", fstype, d.Name)
}

// Attach takes the file for the device.
func (k kernel) Attach(root, file string, _ int64, create bool) (fsys.Loop, error) {
	if k.m.noFile && !create {
		return fsys.Loop{}, fsys.ErrNoFile
	}
	return fsys.Loop{Path: filepath.Join(root, file), Size: diskSize}, k.m.ask("attach %s", file)
}

func (k kernel) Mount(device, _, dir, _, options string) error {
	return k.m.ask("mount %s on %s %s", device, dir, options)
}

func (k kernel) Check(ctx context.Context, device, fstype string, how fsys.Checking) (string, error) {
	if how.Skip {
		return fsys.NotChecked, nil
	}
	for range k.m.minutes {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(time.Minute - time.Second):
		}
		if !k.m.silent {
			how.Alive()
		}
	}
	return cmp.Or(k.m.found, fsys.Clean), k.m.ask("check %s on %s", fstype, device)
}

func (k kernel) Own(_, mount, owner string, mode uint32) error {
	return k.m.ask("give %s to %s, mode %o", mount, owner, mode)
}

func (k kernel) Bind(_, mount string, b config.Bind, alive func()) error {
	alive()
	return k.m.ask("bind %s/%s on %s, seed %v", mount, b.From, b.Path, b.Seed)
}

func (k kernel) Cover(_, dir string) error { return k.m.ask("cover %s", dir) }

func (k kernel) Resize(name string, t dm.Crypt, _ dm.Options) error {
	err := k.m.ask("resize %s to %d", name, t.Sectors)
	if err == nil {
		k.m.table.Sectors = t.Sectors
	}
	return err
}

func (k kernel) Read(dm.Device, int) ([]byte, error) { return nil, errors.New("no mirrors here") }

func (k kernel) Clear(dm.Device, int64) error { return errors.New("no mirrors here") }

func (k kernel) Reload(string, dm.Raid) error { return errors.New("no mirrors here") }

func (k kernel) Health(string) (string, int64, int64, error) {
	return "", 0, 0, errors.New("no mirrors here")
}

func (k kernel) Mounts(dm.Device) ([]fsys.MountPoint, error) { return k.m.mounts, nil }

func (k kernel) Grow(_, dir, fstype string, size int64) (bool, error) {
	return true, k.m.ask("grow %s on %s to %d", fstype, dir, size)
}

// spoilt spoils a file.
func (m *machine) spoilt(t *testing.T) {
	t.Helper()
	if m.spoil != "" {
		m.write(t, m.spoil, []byte("?"))
	}
}

// start has the kernel show the disks at once, by their names.
func (m *machine) start(disks []block.Disk) {
	slices.SortFunc(disks, func(a, b block.Disk) int { return strings.Compare(a.Name, b.Name) })
	m.attach = []event{{disks: disks, settled: true}}
}

// startWith starts with disks A and B of these contents, see disk; "-": it is not there.
func (m *machine) startWith(t *testing.T, a, b string) {
	t.Helper()
	var disks []block.Disk
	for serial, content := range map[string]string{"A": a, "B": b} {
		if content != "-" {
			disks = append(disks, m.disk(t, serial, content))
		}
	}
	m.start(disks)
}

// xen has the first disk say nothing of itself, and IMDS how it is mapped.
func (m *machine) xen(mapping string) {
	d := &m.attach[0].disks[0]
	d.Name, d.Kind, d.Serial = "xvdb", block.KindOther, ""
	m.cloud.Answer = func(_ string, r *http.Request) (int, string) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/block-device-mapping/"):
			return http.StatusOK, mapping
		case strings.HasSuffix(r.URL.Path, "/block-device-mapping/"+mapping):
			return http.StatusOK, "sdb"
		}
		return 0, ""
	}
}

// answer has AWS answer requests to a service otherwise; only those whose path or
// operation has part in it.
func (m *machine) answer(service, part string, code int, body string) {
	m.cloud.Answer = func(asked string, r *http.Request) (int, string) {
		if asked == service && strings.Contains(r.URL.Path+r.Header.Get("X-Amz-Target"), part) {
			return code, body
		}
		return 0, ""
	}
}

// status is what the boot left.
func (m *machine) status(t *testing.T) *status.Boot {
	t.Helper()
	b, err := status.Read(m.Status)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// check compares the journal: the lines of want begin lines of it, in this order, and
// none of never's does.
func (m *machine) check(t *testing.T, want, never []string) {
	t.Helper()
	journal := strings.Join(m.journal, "\n")
	next := 0
	for _, w := range want {
		for next < len(m.journal) && !strings.HasPrefix(m.journal[next], w) {
			next++
		}
		if next == len(m.journal) {
			t.Fatalf("the boot did not say or do %q (in this order):\n%s", w, journal)
		}
		next++
	}
	for _, n := range never {
		if strings.Contains("\n"+journal, "\n"+n) {
			t.Errorf("the boot said or did %q:\n%s", n, journal)
		}
	}
}
