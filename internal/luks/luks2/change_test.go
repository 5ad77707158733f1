package luks2_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
)

func read(t *testing.T, d *disk) *luks2.Header {
	t.Helper()
	h, err := luks2.Read(d, testSize, luks2.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// opens reports whether d opens with a passphrase; all errors but
// ErrPassphrase fail the test.
func opens(t *testing.T, d *disk, passphrase string) bool {
	t.Helper()
	p, err := read(t, d).Open(t.Context(), pass(t, passphrase))
	if err != nil && !errors.Is(err, luks2.ErrPassphrase) {
		t.Fatal(err)
	}
	p.Wipe()
	return err == nil
}

func TestUnknownMembersSurvive(t *testing.T) {
	v := newVolume(t)
	const odd = `"odd":[1.50e+3, {"\u0041":null} , "\/"]`
	v.text(func(s string) string {
		s = strings.Replace(s, `{"keyslots"`, `{`+odd+`,"keyslots"`, 1)
		s = strings.Replace(s, `"aws-kms"`, `"aws-kms",`+odd, 1)
		s = strings.Replace(s, `"json_size"`, odd+`,"json_size"`, 1)
		return strings.Replace(s, `"priority"`, odd+`,"priority"`, 1)
	})
	v.text(func(s string) string { return strings.Replace(s, `"segments":{"0":{`, `"segments":{"0":{`+odd+`,`, 1) })
	v.store()
	before := area(v.d)
	h := read(t, v.d)
	if _, err := h.PutToken(v.d, 5, json.RawMessage(`{"type":"x","keyslots":[]}`)); err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(before, `"blob":"x"}}`, `"blob":"x"},"5":{"type":"x","keyslots":[]}}`, 1)
	if got := area(v.d); got != want {
		t.Errorf("after PutToken:\n%s\nwant\n%s", got, want)
	}
	if err := h.RemoveToken(v.d, 5); err != nil {
		t.Fatal(err)
	}
	if got := area(v.d); got != before {
		t.Errorf("after RemoveToken:\n%s\nwant\n%s", got, before)
	}
	if err := h.KillKeyslot(v.d, 0); err != nil {
		t.Fatal(err)
	}
	if got := area(v.d); strings.Count(got, odd) != strings.Count(before, odd) {
		t.Errorf("after KillKeyslot:\n%s", got)
	}
}

// area returns the JSON text of the primary header.
func area(d *disk) string {
	b := make([]byte, 12<<10)
	d.ReadAt(b, 4096)
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// TestRefusals: what cannot be done is not begun.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		do   func(h *luks2.Header, d *disk) error
		want string
	}{
		{"token without a type", putToken(`{"keyslots":[]}`), `"type" is missing`},
		{"token without keyslots", putToken(`{"type":"x"}`), `"keyslots" is missing`},
		{"token of a keyslot that is not there", putToken(`{"type":"x","keyslots":["9"]}`), "keyslot 9 does not exist"},
		{"token that is no object", putToken(`[]`), "not start with an object"},
		{"token that is no JSON", putToken(`{"type":`), "EOF"},
		{"token with a name twice", putToken(`{"type":"x","type":"y","keyslots":[]}`), "occurs twice"},
		{"token that is too long", putToken(`{"type":"x","keyslots":[],"y":"` + strings.Repeat("y", 12000) + `"}`), "do not fit"},
		{"token 32", func(h *luks2.Header, d *disk) error {
			_, err := h.PutToken(d, 32, json.RawMessage(`{"type":"x","keyslots":[]}`))
			return err
		}, "not an id from 0 to 31"},
		{"kill a keyslot that is not there", func(h *luks2.Header, d *disk) error { return h.KillKeyslot(d, 7) }, "no keyslot 7"},
		{"add a keyslot with a wrong passphrase", func(h *luks2.Header, d *disk) error {
			_, err := h.AddKeyslot(t.Context(), d, pass(t, "wrong"), pass(t, "third"), false)
			return err
		}, "no keyslot opens"},
		{"add a keyslot for an empty passphrase", func(h *luks2.Header, d *disk) error {
			_, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), nil, false)
			return err
		}, "empty passphrase"},
		{"format with a UUID that is none", formatWith("first", luks2.FormatOptions{UUID: "x", SectorSize: 512}), `"x" is not a UUID`},
		{"format with a label that is too long", formatWith("first", luks2.FormatOptions{UUID: testUUID, SectorSize: 512, Label: strings.Repeat("x", 48)}), "longer than 47"},
		{"format with a label that breaks lines", formatWith("first", luks2.FormatOptions{UUID: testUUID, SectorSize: 512, Label: "a\nb"}), "control characters"},
		{"format with sectors of 8192", formatWith("first", luks2.FormatOptions{UUID: testUUID, SectorSize: 8192}), "sector_size 8192"},
		{"format without sectors", formatWith("first", luks2.FormatOptions{UUID: testUUID}), "sector_size 0"},
		{"format with an unknown flag", formatWith("first", luks2.FormatOptions{UUID: testUUID, SectorSize: 512, Flags: []string{"x"}}), "unknown persistent flag"},
		{"format with a bad token", formatWith("first", luks2.FormatOptions{UUID: testUUID, SectorSize: 512, Tokens: []json.RawMessage{json.RawMessage(`{}`)}}), `"type" is missing`},
		{"format with an empty passphrase", formatWith("", formatOptions), "empty passphrase"},
		{"format a device that is too small", func(_ *luks2.Header, d *disk) error {
			_, err := luks2.Format(d, 16<<20, pass(t, "first"), formatOptions)
			return err
		}, "too small"},
		{"format a device of half a sector more", func(_ *luks2.Header, d *disk) error {
			_, err := luks2.Format(d, 17<<20+512, pass(t, "first"), formatOptions)
			return err
		}, "not a number of sectors"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, h := format(t)
			before := d.clone()
			d.log = nil
			err := tt.do(h, d)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if len(d.log) != 0 || !maps.Equal(d.sectors, before.sectors) {
				t.Errorf("wrote %d times", len(d.log))
			}
		})
	}
}

func putToken(raw string) func(h *luks2.Header, d *disk) error {
	return func(h *luks2.Header, d *disk) error {
		_, err := h.PutToken(d, 1, json.RawMessage(raw))
		return err
	}
}

func formatWith(passphrase string, o luks2.FormatOptions) func(h *luks2.Header, d *disk) error {
	return func(_ *luks2.Header, d *disk) error {
		s := secret.Take([]byte(passphrase))
		defer s.Wipe()
		_, err := luks2.Format(d, testSize, s, o)
		return err
	}
}

// TestKillLast: a volume is never left without a keyslot that opens it.
func TestKillLast(t *testing.T) {
	d := twoKeyslots(t)
	h := read(t, d)
	if err := h.KillKeyslot(d, 1); err != nil {
		t.Fatal(err)
	}
	if err := h.KillKeyslot(d, 0); err == nil || !strings.Contains(err.Error(), "last") {
		t.Errorf("KillKeyslot of the last = %v", err)
	}
	if !opens(t, d, "first") || opens(t, d, "second") {
		t.Error("the wrong keyslot is gone")
	}
}

// TestKillWipes: with the old header put back, the killed passphrase does not open.
func TestKillWipes(t *testing.T) {
	d := twoKeyslots(t)
	old := make([]byte, 32<<10)
	d.ReadAt(old, 0)
	if err := read(t, d).KillKeyslot(d, 1); err != nil {
		t.Fatal(err)
	}
	d.WriteAt(old, 0)
	if opens(t, d, "second") {
		t.Error("opens with the passphrase of a killed keyslot")
	}
	if !opens(t, d, "first") {
		t.Error("the other passphrase does not open")
	}
}

// TestStale: who holds a header that somebody else has changed meanwhile writes
// nothing.
func TestStale(t *testing.T) {
	d, ours := format(t)
	theirs := read(t, d)
	if _, err := theirs.PutToken(d, 0, json.RawMessage(`{"type":"x","keyslots":[]}`)); err != nil {
		t.Fatal(err)
	}
	before := maps.Clone(d.sectors)
	if _, err := ours.PutToken(d, 0, json.RawMessage(`{"type":"y","keyslots":[]}`)); !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("PutToken = %v, want ErrChanged", err)
	}
	if err := ours.KillKeyslot(d, 0); !errors.Is(err, luks2.ErrChanged) {
		t.Errorf("KillKeyslot = %v, want ErrChanged", err)
	}
	if !maps.Equal(d.sectors, before) {
		t.Error("something was written")
	}
}

// TestRepair: the rewritten copy has the sequence id of the good one and a salt of
// its own.
func TestRepair(t *testing.T) {
	for i, offset := range []int64{0, 16 << 10} {
		d := damaged(t, offset)
		h := read(t, d)
		if !h.Damaged() || len(h.Notes()) != 1 || !strings.Contains(h.Notes()[0], []string{"primary", "secondary"}[i]+" LUKS2 header is damaged") {
			t.Errorf("Notes() = %q", h.Notes())
		}
		b := make([]byte, 32<<10)
		d.ReadAt(b, 0)
		if err := h.Repair(d); err != nil {
			t.Fatal(err)
		}
		if h.Damaged() {
			t.Error("damaged after Repair")
		}
		a := make([]byte, 32<<10)
		d.ReadAt(a, 0)
		if !bytes.Equal(a[16:24], a[16<<10+16:16<<10+24]) {
			t.Error("sequence ids differ")
		}
		salts := [][]byte{a[104:168], a[16<<10+104 : 16<<10+168], b[offset+104 : offset+168]}
		if bytes.Equal(salts[0], salts[1]) || bytes.Equal(salts[i], salts[2]) {
			t.Error("the salt is not fresh")
		}
		if good := (16 << 10) - offset; !bytes.Equal(a[good:good+16<<10], b[good:good+16<<10]) {
			t.Error("the good copy was written too")
		}
	}
}

// TestManyKeyslots adds until there is no more room; all of them open.
func TestManyKeyslots(t *testing.T) {
	d, h := format(t)
	n := 1
	for ; ; n++ {
		id, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), pass(t, fmt.Sprint("pass", n)), false)
		if err != nil {
			if !strings.Contains(err.Error(), "do not fit") && !strings.Contains(err.Error(), "ids are in use") {
				t.Fatal(err)
			}
			break
		}
		if id != n {
			t.Fatalf("keyslot %d, want %d", id, n)
		}
	}
	if n < 24 {
		t.Errorf("room for %d keyslots only", n)
	}
	if !opens(t, d, "first") || !opens(t, d, fmt.Sprint("pass", n-1)) || opens(t, d, fmt.Sprint("pass", n)) {
		t.Error("not all keyslots open")
	}
	// A gap is used again.
	if err := h.KillKeyslot(d, 5); err != nil {
		t.Fatal(err)
	}
	if id, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), pass(t, "gap"), false); err != nil || id != 5 {
		t.Errorf("AddKeyslot = %d, %v, want 5", id, err)
	}
	if !opens(t, d, "pass4") || !opens(t, d, "gap") || !opens(t, d, "pass6") || opens(t, d, "pass5") {
		t.Error("the neighbours of the gap suffered")
	}
	path := d.save(t)
	mustCryptsetup(t, "gap", "open", "--test-passphrase", "--key-file=-", path)
}

// TestSlow: argon2id, for passphrases that people type.
func TestSlow(t *testing.T) {
	o := formatOptions
	o.Slow, o.Limits = true, luks2.Limits{Memory: 8 << 20}
	d := newDisk()
	h, err := luks2.Format(d, testSize, pass(t, "first"), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), pass(t, "second"), true); err != nil {
		t.Fatal(err)
	}
	if s := area(d); strings.Count(s, `"kdf":{"type":"argon2id","time":4,"memory":8192,"cpus":4,"salt":`) != 2 {
		t.Error(s)
	}
	path := d.save(t)
	for _, p := range []string{"first", "second"} {
		if !opens(t, d, p) {
			t.Errorf("%s does not open", p)
		}
		mustCryptsetup(t, p, "open", "--test-passphrase", "--key-file=-", path)
	}
}

// TestPriorities are cryptsetup's: prefer, normal, and ignore.
func TestPriorities(t *testing.T) {
	path := twoKeyslots(t).save(t)
	mustCryptsetup(t, "", "config", "--key-slot", "0", "--priority", "ignore", path)
	d := load(t, path)
	if opens(t, d, "first") || !opens(t, d, "second") {
		t.Error("an ignored keyslot opens, or hides another")
	}
	mustCryptsetup(t, "", "config", "--key-slot", "0", "--priority", "prefer", path)
	if d := load(t, path); !opens(t, d, "first") || !opens(t, d, "second") {
		t.Error("a preferred keyslot does not open, or hides another")
	}
}

// TestPreferred: the preferred keyslot is tried first, or the other would take
// longer than there is time.
func TestPreferred(t *testing.T) {
	v := newVolume(t)
	v.set("keyslots.0.kdf.iterations", 9_000_000)
	v.set("keyslots.1.priority", 2)
	v.store()
	work := spend(t)
	p, err := read(t, v.d).Open(work, pass(t, "second"))
	if err != nil {
		t.Fatal(err)
	}
	p.Wipe()
	work.judge()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	work = &spending{Context: ctx, t: t, limit: 20, end: func() { cancel(context.DeadlineExceeded) }}
	if _, err := read(t, v.d).Open(work, pass(t, "wrong")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v, want that time is up", err)
	}
}

// TestUnbound: a keyslot for another key than the volume's does not open it.
func TestUnbound(t *testing.T) {
	path := twoKeyslots(t).save(t)
	mustCryptsetup(t, "unbound", "luksAddKey", "-q", "--unbound", "--key-size", "512", "--pbkdf", "pbkdf2",
		"--pbkdf-force-iterations", "1000", path, "-")
	d := load(t, path)
	if opens(t, d, "unbound") || !opens(t, d, "first") {
		t.Error("an unbound keyslot opens the volume, or hides another")
	}
	// Its digest goes with it.
	h := read(t, d)
	if err := h.KillKeyslot(d, 2); err != nil {
		t.Fatal(err)
	}
	if s := area(d); strings.Count(s, `"digest":`) != 1 || !slices.Equal(h.Keyslots(), []int{0, 1}) {
		t.Errorf("keyslots %v in %s", h.Keyslots(), s)
	}
	mustCryptsetup(t, "second", "open", "--test-passphrase", "--key-file=-", d.save(t))
}

// TestLocks: on a block device, cryptsetup waits for us and we for others.
func TestLocks(t *testing.T) {
	path := newDisk().save(t)
	out, err := exec.Command("losetup", "--find", "--show", path).CombinedOutput()
	if err != nil {
		t.Skipf("needs root and loop devices: losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// The kernel does it when the last user has closed it, whatever becomes of us.
	if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
		t.Fatalf("losetup --detach %s: %v: %s", dev, err, out)
	}
	h, err := luks2.Format(f, testSize, pass(t, "first"), formatOptions)
	if err != nil {
		t.Fatal(err)
	}
	mustCryptsetup(t, "first", "open", "--test-passphrase", "--key-file=-", dev)

	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		t.Fatal(err)
	}
	lockFile := fmt.Sprintf("/run/cryptsetup/L_%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for _, name := range []string{dev, lockFile} {
		held, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Flock(int(held.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := h.PutToken(f, 0, json.RawMessage(`{"type":"x","keyslots":[]}`))
			done <- err
		}()
		select {
		case err := <-done:
			t.Fatalf("PutToken did not wait for %s: %v", name, err)
		case <-time.After(100 * time.Millisecond):
		}
		held.Close()
		if err := <-done; err != nil {
			t.Errorf("PutToken after %s was free: %v", name, err)
		}
	}
	if _, err := os.Stat(lockFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", lockFile, err)
	}
}
