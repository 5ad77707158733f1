package badinput

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
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
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/ec2"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/netup"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

const text = `
timeout = "1m"
[key]
source  = "%s"
kms_key = "` + keyARN + `"
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
// volume with its own key. UNLOCK_BADINPUT_SEED repeats a run.
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
	cert, roots, err := authority()
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range inputs {
		t.Run(in.what, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, in.source, cert, roots)
			if err := m.bootIn(t, "", mutator{}); err != nil { // nothing is mutated
				t.Fatalf("without a mutation: %v", err)
			}
			ends := map[int]int{}
			for n := range in.times {
				err := m.bootIn(t, in.what, newMutator(seed, n))
				ends[exitStatus(err)]++
				if err != nil && err.Error() == "" {
					t.Errorf("mutation %d: it failed without a message", n)
				}
				if t.Failed() {
					t.Fatalf("mutation %d of seed %d", n, seed)
				}
			}
			t.Logf("%d mutations: %d did not matter, %d ended with exit status 1, %d with 2", in.times, ends[0], ends[1], ends[2])
			if ends[1]+ends[2] < in.times/10 {
				t.Error("hardly any mutation mattered")
			}
		})
	}
}

// exitStatus is that of cmd/unlock.
func exitStatus(err error) int {
	var bad *config.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		return 2
	}
	return 1
}

// machine is an instance with a volume of ours, AWS1, and a disk of somebody else's, AWS2.
type machine struct {
	dir       string
	source    string
	cert      tls.Certificate
	roots     *x509.CertPool
	head      []byte // of AWS1, as it is without mutations
	volumeKey []byte
}

func newMachine(t *testing.T, source string, cert tls.Certificate, roots *x509.CertPool) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), cert: cert, roots: roots}
	m.source = source
	if source == "file:PATH" {
		m.source = "file:" + m.file("ciphertext")
	}
	foreign := bytes.Repeat([]byte("somebody's data "), 4096)
	for name, content := range map[string][]byte{"AWS1": nil, "AWS2": foreign, "ciphertext": ciphertext} {
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
	text := passphrase
	if source == "header" { // a data key's text opens
		text = base64.StdEncoding.EncodeToString([]byte(passphrase))
	}
	pass := secret.Take([]byte(text))
	defer pass.Wipe()
	o := luks.FormatOptions{UUID: uuid, SectorSize: 512, Set: &luks.SetToken{Version: 1, UUID: uuid, Count: 1, State: luks.StateReady}}
	if source == "header" {
		o.KMS = &luks.KMSToken{Version: 1, Ciphertext: ciphertext, Key: keyARN, Region: "us-east-1",
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
func (m *machine) bootIn(t *testing.T, what string, mut mutator) (result error) {
	conf, blob, head := fmt.Appendf(nil, text, m.source), ciphertext, m.head
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
		result = m.boot(t, mutate)
		if took := time.Since(start); took > 15*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
	for _, disk := range []string{"AWS1", "AWS2"} {
		info, err := os.Stat(m.file(disk))
		if err != nil {
			t.Fatal(err)
		}
		// A header of which one copy is damaged is repaired, once its key has opened it.
		if !info.ModTime().Equal(past) && !(what == "header" && disk == "AWS1" && result == nil) {
			t.Errorf("disk %s was written to (%v)", disk, result)
		}
	}
	return result
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

// boot is what cmd/unlock does between reading its configuration and mounting.
func (m *machine) boot(t *testing.T, mutate func(string, []byte) []byte) error {
	cfg, err := config.Load(m.file("unlock.toml"), "")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), min(cfg.Timeout, 10*time.Minute))
	defer cancel()
	s := plan.Situation{Config: cfg, NewUUID: func() string { return uuid }}
	for i, serial := range []string{"AWS1", "AWS2"} {
		d := block.Disk{Name: serial, Path: m.file(serial), Size: diskSize, SectorSize: 512, Kind: block.KindInstanceStore, Serial: serial, Minor: uint32(i)}
		s.Candidates = append(s.Candidates, unlock.Inspect(&block.Finder{}, luks.Limits{}, d))
	}
	p := plan.Make(s)
	var errs []error
	for _, r := range p.Refusals {
		if r.Volume.Required {
			errs = append(errs, r)
		}
	}
	if err := errors.Join(errs...); err != nil || len(p.Steps) == 0 {
		return err
	}
	if _, err := netup.RequestLease(ctx, newWire(mutate), card, func(string, ...any) {}); err != nil {
		return err
	}
	c := &cloud{mutate: mutate, cert: m.cert}
	defer c.wait.Wait()
	imds := ec2.New(ec2.Options{Dial: c.dial})
	defer imds.Close()
	client, err := keys.New(keys.Options{Identity: imds.Role, Region: imds.Region, Dial: c.dial, Roots: m.roots, AWS: cfg.AWS})
	if err != nil {
		return err
	}
	defer client.Close()
	a := unlock.Apply{
		Keys: client.Get, Rec: status.NewRecorder(), Log: func(string, ...any) {},
		Ask: func(string, error) (*secret.Bytes, error) { return nil, errors.New("nobody is at the console") },
		Map: func(name, _ string, target dm.Target, _ dm.Options) (dm.Device, error) {
			if crypt := target.(dm.Crypt); !bytes.Equal(crypt.Key.Bytes(), m.volumeKey) {
				t.Errorf("%s was opened with another key than its own", name)
			}
			return dm.Device{}, nil
		},
	}
	for _, r := range a.Run(ctx, p) {
		if r.Step.Volume.Required {
			errs = append(errs, r.Err)
		}
	}
	return errors.Join(errs...)
}
