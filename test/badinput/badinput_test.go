package badinput

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/block"
	"unlock/internal/boot"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/fsys"
	"unlock/internal/luks"
	"unlock/internal/netup"
	"unlock/internal/secret"
	"unlock/internal/unlock"
	"unlock/test/pipecloud"
)

const text = `
timeout = "1m"
[aws]
ca_bundle = "%s"
[key]
source  = "%s"
kms_key = "` + pipecloud.KeyARN + `"
[key.context]
purpose = "secretfs"
[[volume]]
name       = "secretfs"
device     = "serial=AWS1"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
[[volume]]
name       = "other"
device     = "serial=AWS2"
format     = "never"
required   = false
`

const (
	uuid     = "0a1b2c3d-0000-4000-8000-00000000000f"
	diskSize = 17 << 20
	headSize = 32 << 10 // two headers of 16 KiB
)

// inputs are what is mutated, how often, and what the key's source then is.
var inputs = []struct {
	what   string
	times  int
	source string
}{
	{"configuration", 3000, "s3://bucket/object"},
	{"ciphertext", 1000, "file:PATH"},
	{"imds", 1500, "s3://bucket/object"},
	{"s3", 1000, "s3://bucket/object"},
	{"kms", 1200, "s3://bucket/object"},
	{"dhcp", 1000, "file:PATH"},
	{"header", 1300, "header"},
}

// TestBadInput puts one mutated input at a time through a boot. None may panic,
// hang or format; a boot that fails says why, and one that succeeds has opened the
// volume with its own key. UNLOCK_BADINPUT_SEED repeats a run; a short one has a
// fortieth of the mutations.
func TestBadInput(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("UNLOCK_BADINPUT_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(os.Stderr, "UNLOCK_BADINPUT_SEED=%d\n", seed) // also if the program dies
	log.SetOutput(io.Discard)                                 // as cmd/unlock does
	authority, err := pipecloud.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		if testing.Short() {
			in.times /= 40
		}
		t.Run(in.what, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, in.source, authority)
			if outcome, said := m.bootIn(t, "", mutator{}); outcome != boot.Done { // nothing is mutated
				t.Fatalf("without a mutation: %s", said)
			}
			ends := map[boot.Outcome]int{}
			for n := range in.times {
				outcome, said := m.bootIn(t, in.what, newMutator(seed, n))
				ends[outcome]++
				if outcome != boot.Done && said == "" {
					t.Errorf("mutation %d: it failed without a message", n)
				}
				if t.Failed() {
					t.Fatalf("mutation %d of seed %d", n, seed)
				}
			}
			t.Logf("%d mutations: %d did not matter, %d ended with exit status 1, %d with 2", in.times, ends[boot.Done], ends[boot.Locked], ends[boot.BadConfig])
			if ends[boot.Locked]+ends[boot.BadConfig] < in.times/10 {
				t.Error("hardly any mutation mattered")
			}
		})
	}
}

// machine is an instance with a volume of ours, AWS1, and a disk of somebody else's, AWS2.
type machine struct {
	dir       string
	source    string
	authority *pipecloud.Authority
	head      []byte // of AWS1, as it is without mutations
	volumeKey []byte
}

func newMachine(t *testing.T, source string, authority *pipecloud.Authority) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), authority: authority}
	m.source = source
	if source == "file:PATH" {
		m.source = "file:" + m.file("ciphertext")
	}
	foreign := bytes.Repeat([]byte("somebody's data "), 4096)
	for name, content := range map[string][]byte{"AWS1": nil, "AWS2": foreign, "ciphertext": pipecloud.Ciphertext(), "ca.pem": authority.PEM()} {
		if err := os.WriteFile(m.file(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, disk := range []string{"AWS1", "AWS2"} {
		if err := os.Truncate(m.file(disk), diskSize); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(m.file("AWS1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := pipecloud.Passphrase
	if source == "header" { // a data key's text opens
		text = base64.StdEncoding.EncodeToString([]byte(pipecloud.Passphrase))
	}
	pass := secret.Take([]byte(text))
	defer pass.Wipe()
	o := luks.FormatOptions{UUID: uuid, SectorSize: 512, Set: &luks.SetToken{Version: 1, UUID: uuid, Count: 1, State: luks.StateReady}}
	if source == "header" {
		o.KMS = &luks.KMSToken{Version: 1, Ciphertext: pipecloud.Ciphertext(), Key: pipecloud.KeyARN, Region: "us-east-1",
			Context: map[string]string{config.ContextSet: uuid, "purpose": "secretfs"}}
	}
	h, err := luks.Format(f, diskSize, pass, o)
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Open(t.Context(), pass)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wipe()
	m.volumeKey = bytes.Clone(p.Key.Bytes())
	m.head = make([]byte, headSize)
	if _, err := f.ReadAt(m.head, 0); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) file(name string) string { return filepath.Join(m.dir, name) }

// past is when the disks were last written to before a boot.
var past = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

// bootIn mutates an input, boots in a bubble of fake time, and checks what every boot
// must keep to.
func (m *machine) bootIn(t *testing.T, what string, mut mutator) (outcome boot.Outcome, said string) {
	conf, blob, head := fmt.Appendf(nil, text, m.file("ca.pem"), m.source), pipecloud.Ciphertext(), m.head
	switch what {
	case "configuration":
		conf = mut.mutate(conf)
	case "ciphertext":
		blob = mut.mutate(blob)
	case "header":
		head = mut.mutateHeader(head)
	}
	err := errors.Join(os.WriteFile(m.file("unlock.toml"), conf, 0o600), os.WriteFile(m.file("ciphertext"), blob, 0o600), m.putHead(head))
	if err != nil {
		t.Fatal(err)
	}
	for _, disk := range []string{"AWS1", "AWS2"} {
		if err := os.Chtimes(m.file(disk), past, past); err != nil {
			t.Fatal(err)
		}
	}
	mutate := func(service string, answer []byte) []byte {
		if service == what {
			return mut.mutate(answer)
		}
		return answer
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		outcome, said = m.boot(t, mutate)
		limit := 2 * time.Minute
		if cfg, err := config.Load(m.file("unlock.toml"), ""); err == nil {
			limit = cfg.Timeout + time.Minute // a mutation may have changed it
		}
		if took := time.Since(start); took > limit {
			t.Errorf("it took %v, want at most %v", took, limit)
		}
	})
	for _, disk := range []string{"AWS1", "AWS2"} {
		info, err := os.Stat(m.file(disk))
		if err != nil {
			t.Fatal(err)
		}
		// A header of which one copy is damaged is repaired, once its key has opened it.
		if !info.ModTime().Equal(past) && !(what == "header" && disk == "AWS1" && outcome == boot.Done) {
			t.Errorf("disk %s was written to (%s)", disk, said)
		}
	}
	return outcome, said
}

func (m *machine) putHead(head []byte) error {
	f, err := os.OpenFile(m.file("AWS1"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(head, 0)
	return errors.Join(err, f.Close())
}

// mutateHeader changes either copy, or both alike, mostly so that the checksum is right.
func (m mutator) mutateHeader(head []byte) []byte {
	out := bytes.Clone(head)
	half := len(head) / 2
	changed := m.mutate(bytes.TrimRight(head[:half], "\x00"))
	changed = append(changed[:min(len(changed), half)], make([]byte, half-min(len(changed), half))...)
	if m.IntN(5) > 0 {
		fixChecksum(changed)
	}
	copies := 1 + m.IntN(3)
	if copies&1 != 0 {
		copy(out, changed)
	}
	if copies&2 != 0 {
		second := bytes.Clone(changed)
		copy(second, head[half:half+8])                        // the magic
		binary.BigEndian.PutUint64(second[256:], uint64(half)) // its place
		copy(second[104:168], head[half+104:half+168])         // its salt
		if m.IntN(5) > 0 {
			fixChecksum(second)
		}
		copy(out[half:], second)
	}
	return out
}

// fixChecksum puts the SHA-256 of a header where LUKS2 has it.
func fixChecksum(h []byte) {
	clear(h[448:512])
	sum := sha256.Sum256(h)
	copy(h[448:], sum[:])
}

// boot does both parts of a boot and returns what came of it, and what it said of
// failures.
func (m *machine) boot(t *testing.T, mutate func(string, []byte) []byte) (outcome boot.Outcome, said string) {
	c := &pipecloud.Cloud{Authority: m.authority, Mutate: mutate}
	defer c.Wait()
	here := &boot.Machine{
		Config: m.file("unlock.toml"), Status: m.file("status.json"),
		Log: func(l boot.Level, line string) {
			if l == boot.LevelError {
				said += line
			}
		},
		Prompt: func(string) (*secret.Bytes, error) { return nil, errors.New("nobody is at the console") },
		Watch: func(ctx context.Context, look func([]block.Disk, bool) bool) error {
			if look(m.disks(), true) {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		},
		Network: func(ctx context.Context, w boot.Wanted) (boot.Network, error) {
			_, err := netup.RequestLease(ctx, newWire(mutate), card, func(string, ...any) {})
			for err == nil && ctx.Err() == nil { // as netup does
				if err := w.Reach(ctx, netup.IMDS4, c.Dial); err == nil {
					return network{c}, nil
				}
				time.Sleep(time.Second)
			}
			return network{c}, errors.Join(err, ctx.Err())
		},
		Kernel: kernel{t: t, volumeKey: m.volumeKey},
	}
	if outcome = here.Disks(t.Context()); outcome == boot.Done {
		outcome = here.Files(t.Context(), m.dir)
	}
	return outcome, said
}

func (m *machine) disks() []block.Disk {
	var list []block.Disk
	for i, serial := range []string{"AWS1", "AWS2"} {
		list = append(list, block.Disk{Name: serial, Path: m.file(serial), Size: diskSize, SectorSize: 512, Kind: block.KindInstanceStore,
			Serial: serial, Minor: uint32(i)})
	}
	return list
}

// network has nothing to undo.
type network struct{ *pipecloud.Cloud }

func (network) Families() (four, six bool) { return true, false }
func (network) Rinse(context.Context)      {}
func (network) Down() error                { return nil }

// kernel maps nothing but sees with which key it should.
type kernel struct {
	unlock.Kernel // what a boot does not ask for here
	t             *testing.T
	volumeKey     []byte
}

func (k kernel) Create(name, _ string, target dm.Target, _ dm.Options) (dm.Device, error) {
	if crypt := target.(dm.Crypt); !bytes.Equal(crypt.Key.Bytes(), k.volumeKey) {
		k.t.Errorf("%s was opened with another key than its own", name)
	}
	return dm.Device{Name: name}, nil
}

func (kernel) Lookup(string) (dm.Device, bool, error) { return dm.Device{}, false, nil }
func (kernel) Remove(string) error                    { return nil }
func (kernel) MakeFS(context.Context, dm.Device, string, ...string) error {
	return errors.New("it should not be formatted")
}
func (kernel) Check(context.Context, string, string, fsys.Checking) (string, error) {
	return fsys.Clean, nil
}
func (kernel) Mount(string, string, string, string, string) error { return nil }
func (kernel) Cover(string, string) error                         { return nil }
func (kernel) Attach(string, string, int64, bool) (fsys.Loop, error) {
	return fsys.Loop{}, errors.New("there are no loop devices")
}
