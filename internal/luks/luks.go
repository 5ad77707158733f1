// Package luks reads, opens, formats and changes LUKS volumes: LUKS2 (package luks2)
// as a whole, LUKS1 for reading and opening. A header is input that an attacker may have written: it is parsed once into memory,
// validated, and only that copy is used afterwards.
//
// Nothing here talks to the kernel: a Payload says what device-mapper has to map,
// package dm maps it.
package luks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
)

var (
	// ErrNotLUKS: no LUKS magic in any place where one may be.
	ErrNotLUKS = errors.New("not a LUKS device")
	// ErrPassphrase: keyslots were tried, and none opens with the passphrase.
	ErrPassphrase = luks2.ErrPassphrase
	// ErrChanged: the header on the device is no longer the one that was read;
	// nothing was written.
	ErrChanged = luks2.ErrChanged

	errNotLUKS2 = errors.New("this is a LUKS1 volume, which unlock opens but does not change")
)

type (
	// Device is what a header is written to: an *os.File opened O_RDWR, or a
	// recorder in tests.
	Device = luks2.Device
	// Limits bound what a header may ask of this machine.
	Limits = luks2.Limits
	// Payload is the encrypted area of a volume and the key to it.
	Payload = luks2.Payload
	// Over is what a device held before it was formatted.
	Over = luks2.Over
	// Deriver derives keys from one passphrase, for a set of volumes once.
	Deriver = luks2.Deriver
)

// What a device held before it was formatted.
const (
	OverBlank     = luks2.OverBlank
	OverEphemeral = luks2.OverEphemeral
)

// NewDeriver returns a Deriver, which the caller wipes. The passphrase stays the
// caller's and must outlive it.
func NewDeriver(passphrase *secret.Bytes) *Deriver { return luks2.NewDeriver(passphrase) }

// Header is a validated LUKS header, with its key material: the reader that it
// came from is not used afterwards.
type Header struct {
	v1 *header1
	v2 *luks2.Header
}

// MinSize is the size in bytes of the smallest device that Format takes.
const MinSize = luks2.MinSize

// DataOffset is where the payload begins on a device that Format has formatted, in bytes.
const DataOffset = luks2.MinSize - 4096

// Read reads and validates the header of a device of size bytes. ErrNotLUKS: no
// LUKS magic in any place where one may be, or what is left of a Format that was cut
// short. Any other error: it is LUKS, or cannot be read, and must not be touched.
func Read(r io.ReaderAt, size int64, lim Limits) (*Header, error) {
	v1, err := read1(r, size, lim)
	if err != nil {
		return nil, fmt.Errorf("LUKS1 header: %w", err)
	}
	if v1 != nil {
		return &Header{v1: v1}, nil
	}
	v2, err := luks2.Read(r, size, lim)
	if errors.Is(err, luks2.ErrNotLUKS) {
		return nil, ErrNotLUKS
	}
	if err != nil {
		return nil, err
	}
	return &Header{v2: v2}, nil
}

// Version returns 1 or 2.
func (h *Header) Version() int {
	if h.v1 != nil {
		return 1
	}
	return 2
}

// UUID of the volume, with dashes.
func (h *Header) UUID() string {
	if h.v1 != nil {
		return h.v1.raw.UUID
	}
	return h.v2.UUID()
}

// Label of the volume; LUKS1 has none.
func (h *Header) Label() string {
	if h.v1 != nil {
		return ""
	}
	return h.v2.Label()
}

// Notes says what was found amiss but could be worked around ("primary header
// is damaged, using the secondary"); one sentence each.
func (h *Header) Notes() []string {
	if h.v1 != nil {
		return nil
	}
	return h.v2.Notes()
}

// Open verifies the passphrase against the keyslots and returns the payload,
// which the caller wipes. ErrPassphrase: no keyslot opens with it.
func (h *Header) Open(ctx context.Context, passphrase *secret.Bytes) (*Payload, error) {
	d := NewDeriver(passphrase)
	defer d.Wipe()
	return h.OpenWith(ctx, d)
}

// OpenWith is Open with a passphrase that several volumes share.
func (h *Header) OpenWith(ctx context.Context, d *Deriver) (*Payload, error) {
	if h.v1 != nil {
		return h.v1.open(ctx, d)
	}
	return h.v2.OpenWith(ctx, d)
}

// Repair rewrites the copy of the header that Read found damaged or stale, if
// there is one; call it only after Open has succeeded.
func (h *Header) Repair(dev Device) error {
	if h.v1 != nil {
		return nil
	}
	return h.v2.Repair(dev)
}

// FormatOptions of a new LUKS2 volume.
type FormatOptions struct {
	UUID       string // lower-case, with dashes
	Label      string
	Subsystem  string
	SectorSize int      // 512..4096
	Flags      []string // persistent
	Over       Over     // what the device held before
	Slow       bool     // argon2id, for typed passphrases; else pbkdf2-sha512 with 1000 iterations, for keys of high entropy
	KMS        *KMSToken
	Set        *SetToken
}

// Format writes a new LUKS2 header with one keyslot to a device of size bytes
// and returns it as read back. It does not ask whether the device is blank.
func Format(dev Device, size int64, passphrase *secret.Bytes, o FormatOptions) (*Header, error) {
	d := NewDeriver(passphrase)
	defer d.Wipe()
	return FormatWith(dev, size, d, o)
}

// FormatWith is Format for one of several volumes that share a passphrase.
func FormatWith(dev Device, size int64, d *Deriver, o FormatOptions) (*Header, error) {
	var tokens []json.RawMessage
	if o.KMS != nil {
		t := *o.KMS
		if t.Keyslots == nil {
			t.Keyslots = []string{"0"}
		}
		raw, err := encodeToken(typeKMS, t)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, raw)
	}
	if o.Set != nil {
		raw, err := encodeSet(*o.Set)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, raw)
	}
	h, err := luks2.FormatWith(dev, size, d, luks2.FormatOptions{
		UUID: o.UUID, Label: o.Label, Subsystem: o.Subsystem,
		SectorSize: o.SectorSize, Flags: o.Flags, Over: o.Over, Slow: o.Slow, Tokens: tokens,
	})
	if err != nil {
		return nil, err
	}
	return &Header{v2: h}, nil
}

// AddKeyslot adds a keyslot for the passphrase added to a volume that existing
// opens, and returns its id; slow takes argon2id, for typed passphrases.
func (h *Header) AddKeyslot(ctx context.Context, dev Device, existing, added *secret.Bytes, slow bool) (int, error) {
	if h.v2 == nil {
		return 0, errNotLUKS2
	}
	return h.v2.AddKeyslot(ctx, dev, existing, added, slow)
}

// KillKeyslot removes a keyslot; the last one that opens the volume is refused.
func (h *Header) KillKeyslot(dev Device, id int) error {
	if h.v2 == nil {
		return errNotLUKS2
	}
	return h.v2.KillKeyslot(dev, id)
}

// Keyslots returns the ids of all keyslots, ascending.
func (h *Header) Keyslots() []int {
	if h.v1 != nil {
		return slices.Clone(h.v1.active)
	}
	return h.v2.Keyslots()
}

// KeyslotsOf returns the ids of all keyslots that the passphrase opens, also those of
// priority "ignore", which Open does not try (LUKS2 only).
func (h *Header) KeyslotsOf(ctx context.Context, passphrase *secret.Bytes) ([]int, error) {
	if h.v2 == nil {
		return nil, errNotLUKS2
	}
	d := NewDeriver(passphrase)
	defer d.Wipe()
	return h.v2.KeyslotsOf(ctx, d)
}

// Unchanged returns ErrChanged unless the header and the key material of r are still
// those that were read, byte for byte.
func (h *Header) Unchanged(r io.ReaderAt) error {
	if h.v1 != nil {
		return h.v1.unchanged(r)
	}
	return h.v2.Unchanged(r)
}

// Damaged reports whether a copy of the header is damaged or out of date, which Repair
// mends.
func (h *Header) Damaged() bool { return h.v2 != nil && h.v2.Damaged() }

// Payload returns what Open does, without the key.
func (h *Header) Payload() *Payload {
	if h.v1 != nil {
		return h.v1.payload()
	}
	return h.v2.Payload()
}
