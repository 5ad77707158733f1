package luks2_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
)

// crashes calls f with the states that a power cut may leave of before, to which
// log was done: for each operation, everything up to the last sync before it, and
// of the sectors written since then a prefix, none, or several random subsets.
func crashes(before *disk, log []op, rng *rand.Rand, f func(name string, d *disk)) {
	type write struct {
		number int64
		data   [sector]byte
	}
	durable := before.clone()
	var pending []write
	for i, o := range log {
		if o.data == nil {
			for _, w := range pending {
				durable.sectors[w.number] = w.data
			}
			pending = nil
			f(fmt.Sprintf("op %d synced", i), durable.clone())
			continue
		}
		if o.offset%sector != 0 || len(o.data)%sector != 0 {
			panic("write of a part of a sector")
		}
		for at := 0; at < len(o.data); at += sector {
			pending = append(pending, write{o.offset/sector + int64(at/sector), [sector]byte(o.data[at:])})
		}
		for cut := range 18 {
			d := durable.clone()
			name := fmt.Sprintf("op %d, variant %d", i, cut)
			switch {
			case cut < 5: // in order, torn
				for _, w := range pending[:rng.IntN(len(pending)+1)] {
					d.sectors[w.number] = w.data
				}
			case cut < 9: // torn among the first sectors, where headers have theirs
				for _, w := range pending[:rng.IntN(min(len(pending), 12)+1)] {
					d.sectors[w.number] = w.data
				}
			default: // any of them, more or less
				keep := rng.Float64()
				for _, w := range pending {
					if rng.Float64() < keep {
						d.sectors[w.number] = w.data
					}
				}
			}
			f(name, d)
		}
	}
}

// TestCrash: whatever a power cut leaves of a change, the header is the old one or
// the new one, and opens as that one should; the next boot can go on from there. A
// short run looks at one state of four.
func TestCrash(t *testing.T) {
	first, second := pass(t, "first"), pass(t, "second")
	token := json.RawMessage(`{"type":"x","keyslots":[],"state":"formed"}`)
	tests := []struct {
		name    string
		before  func(t *testing.T) *disk
		change  func(h *luks2.Header, d *disk) error
		opens   []*secret.Bytes // in every state
		none    bool            // there may be no volume
		remains bool            // of other volumes
	}{
		{"format a blank disk", func(*testing.T) *disk { return newDisk() }, func(_ *luks2.Header, d *disk) error {
			_, err := luks2.Format(d, testSize, first, formatOptions)
			return err
		}, []*secret.Bytes{first}, true, false},
		{"format again", func(t *testing.T) *disk { d, _ := format(t); return d }, func(_ *luks2.Header, d *disk) error {
			_, err := luks2.Format(d, testSize, first, formatOptions)
			return err
		}, []*secret.Bytes{first}, true, false},
		{"format over larger headers", func(t *testing.T) *disk { return foreignHeaders(t, "first") }, func(_ *luks2.Header, d *disk) error {
			_, err := luks2.Format(d, testSize, first, formatOptions)
			return err
		}, []*secret.Bytes{first}, true, true},
		{"put a token", func(t *testing.T) *disk { d, _ := format(t); return d }, func(h *luks2.Header, d *disk) error {
			_, err := h.PutToken(d, 3, token)
			return err
		}, []*secret.Bytes{first}, false, false},
		{"put a token, secondary damaged", func(t *testing.T) *disk { return damaged(t, 16<<10) }, func(h *luks2.Header, d *disk) error {
			_, err := h.PutToken(d, 3, token)
			return err
		}, []*secret.Bytes{first}, false, false},
		{"put a token, primary damaged", func(t *testing.T) *disk { return damaged(t, 0) }, func(h *luks2.Header, d *disk) error {
			_, err := h.PutToken(d, 3, token)
			return err
		}, []*secret.Bytes{first}, false, false},
		{"repair the secondary", func(t *testing.T) *disk { return damaged(t, 16<<10) }, func(h *luks2.Header, d *disk) error {
			return h.Repair(d)
		}, []*secret.Bytes{first}, false, false},
		{"repair the primary", func(t *testing.T) *disk { return damaged(t, 0) }, func(h *luks2.Header, d *disk) error {
			return h.Repair(d)
		}, []*secret.Bytes{first}, false, false},
		{"add a keyslot", func(t *testing.T) *disk { d, _ := format(t); return d }, func(h *luks2.Header, d *disk) error {
			_, err := h.AddKeyslot(t.Context(), d, first, second, false)
			return err
		}, []*secret.Bytes{first}, false, false},
		{"kill a keyslot", twoKeyslots, func(h *luks2.Header, d *disk) error {
			return h.KillKeyslot(d, 0)
		}, []*secret.Bytes{second}, false, false},
	}
	total, asked := 0, 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.before(t)
			h, err := luks2.Read(before, testSize, luks2.Limits{})
			if err != nil && !tt.none {
				t.Fatal(err)
			}
			d := before.clone()
			if err := tt.change(h, d); err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, uint64(len(tt.name))))
			crashes(before, d.log, rng, func(name string, d *disk) {
				if total++; testing.Short() && total%4 > 0 {
					return
				}
				h, err := luks2.Read(d, testSize, luks2.Limits{})
				if err != nil && tt.none {
					// Among the remains of another program's volume it is hard to tell what
					// happened, and any refusal will do.
					if len(d.sectors) > 0 && !errors.Is(err, luks2.ErrInterrupted) && !tt.remains {
						t.Fatalf("%s: Read = %v, want ErrInterrupted", name, err)
					}
					return
				}
				if err != nil {
					t.Fatalf("%s: lost: %v", name, err)
				}
				if h.Damaged() != (len(h.Notes()) > 0) {
					t.Errorf("%s: Damaged() = %v, Notes() = %q", name, h.Damaged(), h.Notes())
				}
				for _, p := range tt.opens {
					payload, err := h.Open(t.Context(), p)
					if err != nil {
						t.Fatalf("%s: Open = %v; keyslots %v", name, err, h.Keyslots())
					}
					payload.Wipe()
				}
				// A keyslot that the header names works.
				if len(h.Keyslots()) > 1 {
					for _, p := range []*secret.Bytes{first, second} {
						payload, err := h.Open(t.Context(), p)
						if err != nil {
							t.Fatalf("%s: broken keyslot among %v: %v", name, h.Keyslots(), err)
						}
						payload.Wipe()
					}
				}
				if rng.IntN(20) == 0 {
					asked++
					askCryptsetup(t, name, d, h, tt.opens[0])
				}
				if err := h.Repair(d); err != nil {
					t.Fatalf("%s: Repair: %v", name, err)
				}
				if h, err := luks2.Read(d, testSize, luks2.Limits{}); err != nil || h.Damaged() {
					t.Fatalf("%s: after Repair: %v, notes %q", name, err, h.Notes())
				}
			})
		})
	}
	t.Logf("%d states, %d of them shown to cryptsetup", total, asked)
	if !testing.Short() && (total < 500 || asked < 10) {
		t.Errorf("%d states, %d shown to cryptsetup: too few to mean anything", total, asked)
	}
}

// askCryptsetup checks that it opens the same volume with the same keyslots.
func askCryptsetup(t *testing.T, name string, d *disk, h *luks2.Header, p *secret.Bytes) {
	t.Helper()
	path := d.save(t)
	if out, err := cryptsetup(t, string(p.Bytes()), "open", "--test-passphrase", "--key-file=-", path); err != nil {
		t.Errorf("%s: cryptsetup open: %v\n%s", name, err, out)
	}
	for _, id := range h.Keyslots() {
		dump, err := cryptsetup(t, "", "luksDump", "--dump-json-metadata", path)
		if err != nil {
			t.Fatalf("%s: cryptsetup luksDump: %v\n%s", name, err, dump)
		}
		var meta struct {
			Keyslots map[int]any `json:"keyslots"`
		}
		if err := json.Unmarshal([]byte(dump), &meta); err != nil {
			t.Fatal(err)
		}
		if _, ok := meta.Keyslots[id]; !ok || len(meta.Keyslots) != len(h.Keyslots()) {
			t.Errorf("%s: keyslots %v here, %v there", name, h.Keyslots(), meta.Keyslots)
		}
	}
}

// damaged returns a volume, one copy of whose header is torn.
func damaged(t *testing.T, offset int64) *disk {
	d, _ := format(t)
	d.sectors[(offset+4096)/sector] = [sector]byte{'{', '}'}
	return d
}

// twoKeyslots returns a volume that opens with "first" and "second".
func twoKeyslots(t *testing.T) *disk {
	d, h := format(t)
	if _, err := h.AddKeyslot(t.Context(), d, pass(t, "first"), pass(t, "second"), false); err != nil {
		t.Fatal(err)
	}
	return d
}

// foreignHeaders returns a volume made by cryptsetup with larger headers than
// ours, and the secondary headers of yet older ones further on.
func foreignHeaders(t *testing.T, passphrase string) *disk {
	path := newDisk().save(t)
	mustCryptsetup(t, passphrase, "luksFormat", "-q", "--luks2-metadata-size", "128k", "--luks2-keyslots-size", "512k", "--pbkdf", "pbkdf2",
		"--pbkdf-force-iterations", "1000", path, "-")
	d := load(t, path)
	older := newDisk().save(t)
	for _, size := range []string{"512k", "1m", "2m", "4m"} {
		mustCryptsetup(t, "older", "luksFormat", "-q", "--luks2-metadata-size", size, "--luks2-keyslots-size", "512k", "--pbkdf", "pbkdf2",
			"--pbkdf-force-iterations", "1000", older, "-")
		var n int64
		fmt.Sscanf(size, "%d", &n)
		n <<= map[byte]int{'k': 10, 'm': 20}[size[len(size)-1]]
		o := load(t, older)
		for i := n / sector; i < 2*n/sector; i++ {
			d.sectors[i] = o.sectors[i]
		}
	}
	return d
}
