package enrollment_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/enrollment"
	"unlock/cmd/unlockctl/internal/recovery"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/secret"
	"unlock/test/program"
)

const (
	size   = 20 << 20 // bytes
	page   = 4096
	setID  = "11111111-2222-3333-4444-555555555555"
	keyARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// power lets a number of writes pass, cuts the next one in the middle, and fails
// all that follow. Negative: it never fails.
type power struct{ left int }

var errCut = errors.New("power cut")

// disk is a sparse disk in memory.
type disk struct {
	pages map[int64][page]byte
	power *power
}

func newDisk() *disk { return &disk{map[int64][page]byte{}, &power{-1}} }

func (d *disk) clone(p *power) *disk { return &disk{maps.Clone(d.pages), p} }

func (d *disk) ReadAt(b []byte, offset int64) (int, error) {
	if offset >= size {
		return 0, io.EOF
	}
	for at := 0; at < len(b); {
		where := offset + int64(at)
		if p, ok := d.pages[where/page]; ok {
			at += copy(b[at:], p[where%page:])
			continue
		}
		n := min(len(b)-at, page-int(where%page))
		clear(b[at : at+n])
		at += n
	}
	return len(b), nil
}

func (d *disk) WriteAt(b []byte, offset int64) (int, error) {
	if d.power.left == 0 {
		d.power.left = -2
		b = b[:len(b)/2]
	} else if d.power.left == -2 {
		return 0, errCut
	}
	for at := 0; at < len(b); {
		where := offset + int64(at)
		p := d.pages[where/page]
		at += copy(p[where%page:], b[at:])
		d.pages[where/page] = p
	}
	if d.power.left == -2 {
		return len(b), errCut
	}
	if d.power.left > 0 {
		d.power.left--
	}
	return len(b), nil
}

func (d *disk) Sync() error { return nil }

func pass(text string) *secret.Bytes { return secret.Take([]byte(text)) }

// fakeKMS encrypts by prefixing.
var fakeKMS = enrollment.Rotation{
	New: func(context.Context) (*secret.Bytes, keys.Blob, error) { return pass("new"), blob("new"), nil },
	Decrypt: func(_ context.Context, ciphertext []byte) (*secret.Bytes, error) {
		return pass(strings.TrimPrefix(string(ciphertext), "encrypted ")), nil
	},
	Log: func(string, ...any) {},
}

func blob(passphrase string) keys.Blob {
	return keys.Blob{Ciphertext: []byte("encrypted " + passphrase), KeyARN: keyARN, Context: map[string]string{config.ContextSet: setID}}
}

// volume returns the disks of a volume that opens with "old", with the aws-kms
// token if it is the kind whose key is in the header.
func volume(t *testing.T, count int, header bool) []*disk {
	t.Helper()
	var disks []*disk
	for i := range count {
		d := newDisk()
		o := luks.FormatOptions{
			UUID: fmt.Sprintf("%d2345678-2222-3333-4444-555555555555", i), SectorSize: 512,
			Set: &luks.SetToken{Version: 1, UUID: setID, Index: i, Count: count, State: luks.StateReady},
		}
		if count > 1 {
			o.Set.Chunk = 256 << 10
		}
		if header {
			b := blob("old")
			o.KMS = &luks.KMSToken{Version: 1, Ciphertext: b.Ciphertext, Key: b.KeyARN, Region: "us-east-1", Context: b.Context}
		}
		if _, err := luks.Format(d, size, pass("old"), o); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, d)
	}
	return disks
}

func open(disks []*disk) (*enrollment.Set, error) {
	var list []*enrollment.Disk
	for i, d := range disks {
		e, err := enrollment.New(fmt.Sprintf("disk%d", i), d, size)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return enrollment.NewSet(list)
}

func mustOpen(t *testing.T, disks []*disk) *enrollment.Set {
	t.Helper()
	s, err := open(disks)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRotateCut cuts the power at every write of a rotation. Whatever is published
// then opens all disks, and the next rotation finishes the work. A short run cuts at one
// write of four.
func TestRotateCut(t *testing.T) {
	t.Parallel()
	step := 1
	if testing.Short() {
		step = 4
	}
	for name, row := range map[string]struct {
		disks  int
		header bool
	}{
		"key in the header":              {1, true},
		"key in the headers of a stripe": {2, true},
		"sealed passphrase":              {1, false},
		"sealed passphrase of a stripe":  {2, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := volume(t, row.disks, row.header)
			cuts := 0
			for cut := 0; ; cut += step {
				p := &power{cut}
				var disks []*disk
				for _, d := range before {
					disks = append(disks, d.clone(p))
				}
				object := []byte("encrypted old")
				rotate := func() error {
					s, err := open(disks)
					if err != nil {
						return err
					}
					r := fakeKMS
					if !row.header {
						r.Object = object
						r.Publish = func(_ context.Context, b keys.Blob) error {
							if p.left == 0 || p.left == -2 { // this write is one of those to be cut
								p.left = -2
								return errCut
							}
							p.left = max(p.left-1, -1)
							object = b.Ciphertext
							return nil
						}
					}
					return s.Rotate(t.Context(), r)
				}
				err := rotate()
				if err != nil && !errors.Is(err, errCut) {
					t.Fatalf("cut %d: %v", cut, err)
				}
				p.left = -1
				published(t, fmt.Sprintf("cut %d", cut), disks, object, row.header)
				if err == nil {
					finished(t, disks)
					break
				}
				cuts++
				if err := rotate(); err != nil {
					t.Fatalf("cut %d: going on: %v", cut, err)
				}
				published(t, fmt.Sprintf("cut %d, finished", cut), disks, object, row.header)
				finished(t, disks)
			}
			if cuts < 8*row.disks/step {
				t.Errorf("only %d writes were cut", cuts)
			}
			t.Logf("%d cuts", cuts)
		})
	}
}

// published checks that each published ciphertext opens all disks, as a boot does.
func published(t *testing.T, name string, disks []*disk, object []byte, header bool) {
	t.Helper()
	s := mustOpen(t, disks)
	ciphertexts := [][]byte{object}
	if header {
		ciphertexts = nil
		for _, d := range s.Disks {
			k, ok, err := d.Header().KMS()
			if !ok || err != nil {
				t.Fatalf("%s: %s has no token: %v", name, d.Path, err)
			}
			ciphertexts = append(ciphertexts, k.Ciphertext)
		}
	}
	for _, c := range ciphertexts {
		p, _ := fakeKMS.Decrypt(t.Context(), c)
		if err := s.Check(t.Context(), p); err != nil {
			t.Fatalf("%s: published %q: %v", name, c, err)
		}
	}
}

// finished checks that only the new passphrase opens the disks, and no trace of
// the rotation is left.
func finished(t *testing.T, disks []*disk) {
	t.Helper()
	s := mustOpen(t, disks)
	if err := s.Check(t.Context(), pass("new")); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Pending(); ok || err != nil {
		t.Errorf("pending: %v, %v", ok, err)
	}
	for _, d := range s.Disks {
		if n := len(d.Header().Keyslots()); n != 1 {
			t.Errorf("%s has %d keyslots, want 1", d.Path, n)
		}
	}
	if err := s.Check(t.Context(), pass("old")); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("the old passphrase: %v", err)
	}
}

// TestRotateKeepsOthers: a recovery key survives a rotation.
func TestRotateKeepsOthers(t *testing.T) {
	t.Parallel()
	disks := volume(t, 1, true)
	s := mustOpen(t, disks)
	if err := s.AddRecovery(t.Context(), pass("old"), pass("on paper")); err != nil {
		t.Fatal(err)
	}
	if err := s.Rotate(t.Context(), fakeKMS); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, disks)
	for _, p := range []string{"new", "on paper"} {
		if err := s.Check(t.Context(), pass(p)); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// TestRotateIgnored: a keyslot that is never tried for its priority stands in no
// rotation's way, and goes if the old passphrase opens it.
func TestRotateIgnored(t *testing.T) {
	t.Parallel()
	for name, left := range map[string]int{"rescue": 2, "old": 1} {
		disks := volume(t, 1, true)
		h, err := luks.Read(disks[0], size, luks.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.AddKeyslot(t.Context(), disks[0], pass("old"), pass(name), false); err != nil {
			t.Fatal(err)
		}
		ignoreKeyslot(t, disks[0], "1")
		if err := mustOpen(t, disks).Rotate(t.Context(), fakeKMS); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if h, err = luks.Read(disks[0], size, luks.Limits{}); err != nil || len(h.Keyslots()) != left {
			t.Errorf("%s: keyslots %v, %v; want %d", name, h.Keyslots(), err, left)
		}
	}
}

// ignoreKeyslot has cryptsetup set a keyslot's priority.
func ignoreKeyslot(t *testing.T, d *disk, slot string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	b := make([]byte, size)
	if _, err := d.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	program.Need(t, "cryptsetup")
	if out, err := exec.Command("cryptsetup", "config", "--priority", "ignore", "--key-slot", slot, path).CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup config: %v\n%s", err, out)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt(b[:32<<10], 0); err != nil {
		t.Fatal(err)
	}
}

func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	disks := volume(t, 1, false)
	before := maps.Clone(disks[0].pages)
	if err := mustOpen(t, disks).Rotate(t.Context(), fakeKMS); err == nil || !strings.Contains(err.Error(), "no disk has an aws-kms token") {
		t.Errorf("without a token: %v", err)
	}
	r := fakeKMS
	r.Object, r.Publish = []byte("encrypted something else"), func(context.Context, keys.Blob) error { return nil }
	if err := mustOpen(t, disks).Rotate(t.Context(), r); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("an object of another volume: %v", err)
	}
	if !maps.Equal(before, disks[0].pages) {
		t.Error("a refusal wrote to the disk")
	}
}

func TestRewrap(t *testing.T) {
	t.Parallel()
	disks := volume(t, 2, true)
	const to = "arn:aws:kms:eu-west-1:111122223333:key/other"
	calls := 0
	wrap := func(_ context.Context, k luks.KMSToken) (keys.Blob, error) {
		calls++
		return keys.Blob{Ciphertext: slices.Concat(k.Ciphertext, nil), KeyARN: to, Context: k.Context}, nil
	}
	for _, want := range []int{2, 0} {
		if n, err := mustOpen(t, disks).Rewrap(t.Context(), to, wrap); n != want || err != nil {
			t.Errorf("Rewrap = %d, %v, want %d", n, err, want)
		}
	}
	k, _, err := mustOpen(t, disks).KMS()
	if calls != 1 || err != nil || k.Key != to || k.Region != "eu-west-1" || k.Keyslots[0] != "0" {
		t.Errorf("%d calls; token %+v, %v", calls, k, err)
	}
}

func TestEnroll(t *testing.T) {
	t.Parallel()
	disks := volume(t, 1, false)
	s := mustOpen(t, disks)
	if err := s.AddKMS(t.Context(), pass("wrong"), pass("data key"), blob("data key")); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	if err := s.AddKMS(t.Context(), pass("old"), pass("data key"), blob("data key")); err != nil {
		t.Fatal(err)
	}
	if err := s.Vacant(enrollment.TypeKMS); !errors.Is(err, enrollment.ErrEnrolled) {
		t.Errorf("Vacant = %v", err)
	}
	key := recovery.New()
	if err := s.AddRecovery(t.Context(), pass("old"), key); err != nil {
		t.Fatal(err)
	}
	tokens, err := s.Disks[0].Tokens()
	if err != nil || len(tokens) != 3 {
		t.Fatalf("tokens %+v, %v", tokens, err)
	}
	if err := s.Remove(t.Context(), enrollment.TypeKMS, pass("data key")); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("removing the key that is given as proof: %v", err)
	}
	if err := s.Remove(t.Context(), enrollment.TypeKMS, key); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, disks)
	if err := s.Check(t.Context(), pass("data key")); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("the removed key: %v", err)
	}
	if err := s.Check(t.Context(), key); err != nil {
		t.Errorf("the recovery key: %v", err)
	}
	if err := s.Remove(t.Context(), enrollment.TypeKMS, key); err == nil {
		t.Error("removed what is not there")
	}
}

func TestSets(t *testing.T) {
	t.Parallel()
	pair, other := volume(t, 2, true), volume(t, 1, true)
	for name, row := range map[string]struct {
		disks []*disk
		err   string
	}{
		"one of a stripe":  {pair[:1], "name them all"},
		"twice the same":   {[]*disk{pair[0], pair[0]}, "the same disk"},
		"of two volumes":   {[]*disk{pair[0], foreign(t)}, "different volumes"},
		"nothing is there": {[]*disk{newDisk()}, "not a LUKS device"},
		"a single one":     {other, ""},
	} {
		_, err := open(row.disks)
		if err == nil && row.err == "" {
			continue
		}
		if err == nil || row.err == "" || !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %v, want %q", name, err, row.err)
		}
	}
}

// foreign is a volume that unlock did not make.
func foreign(t *testing.T) *disk {
	d := newDisk()
	if _, err := luks.Format(d, size, pass("x"), luks.FormatOptions{UUID: "99999999-2222-3333-4444-555555555555", SectorSize: 512}); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDry: what is opened dry is not written to.
func TestDry(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/volume"
	d := volume(t, 1, false)[0]
	content := make([]byte, size)
	if _, err := d.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	write(t, file, content)
	s, err := enrollment.OpenSet([]string{file}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.AddSealed(t.Context(), pass("old"), pass("added"), false, enrollment.SealedToken{Source: "file:/x"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context(), pass("added")); err != nil {
		t.Errorf("the rehearsal: %v", err)
	}
	if !bytes.Equal(read(t, file), content) {
		t.Error("the disk has changed")
	}
}
