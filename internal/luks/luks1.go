package luks

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sort"

	"unlock/internal/hint"
	"unlock/internal/luks/luks2"
)

// LUKS1 is read here and opened by luks2, whose keyslots are of the same making. All
// of the header is validated before any of it is used.

const (
	size1     = 592        // bytes of the header
	sector1   = 512        // bytes
	stripes1  = 4000       // of the anti-forensic splitter
	enabled1  = 0x00ac71f3 // keyslot in use
	disabled1 = 0x0000dead // free keyslot
	maxImage1 = 4 << 20    // bytes of header and key material; cryptsetup's take 2 MiB
)

var magic1 = []byte("LUKS\xba\xbe\x00\x01")

// raw1 is what the header says (LUKS1 specification, figure 1).
type raw1 struct {
	CipherName    string
	CipherMode    string
	HashSpec      string
	PayloadOffset uint32 // sectors
	KeyBytes      uint32
	Digest        [20]byte
	DigestSalt    [32]byte
	DigestIter    uint32
	UUID          string
	Keyslots      [8]keyslot1
}

type keyslot1 struct {
	Active     uint32
	Iterations uint32
	Salt       [32]byte
	Offset     uint32 // sectors
	Stripes    uint32
}

// decode1 takes the header apart as it is on disk, big endian, behind magic and version. It
// is short beside what encoding/binary needs to do this by reflection.
func decode1(head []byte) *raw1 {
	be := binary.BigEndian
	raw := &raw1{
		CipherName: text1(head[8:40]), CipherMode: text1(head[40:72]), HashSpec: text1(head[72:104]),
		PayloadOffset: be.Uint32(head[104:]), KeyBytes: be.Uint32(head[108:]),
		Digest: [20]byte(head[112:132]), DigestSalt: [32]byte(head[132:164]), DigestIter: be.Uint32(head[164:]),
		UUID: text1(head[168:208]),
	}
	for i := range raw.Keyslots {
		k := head[208+48*i:]
		raw.Keyslots[i] = keyslot1{Active: be.Uint32(k), Iterations: be.Uint32(k[4:]), Salt: [32]byte(k[8:40]), Offset: be.Uint32(k[40:]), Stripes: be.Uint32(k[44:])}
	}
	return raw
}

// header1 is a validated LUKS1 header.
type header1 struct {
	head   []byte // as it was read
	raw    *raw1
	offset int64 // of the payload, bytes
	size   int64 // of the payload, bytes
	active []int // keyslots in use
	keys   luks2.Keyslots1
}

// read1 returns nil if there is no LUKS1 magic.
func read1(r io.ReaderAt, size int64, lim Limits) (*header1, error) {
	head := make([]byte, size1)
	if n, _ := r.ReadAt(head, 0); n < len(head) || !bytes.HasPrefix(head, magic1) {
		return nil, nil // what cannot be read is left to luks2, which has a second header
	}
	raw := decode1(head)
	h, err := raw.validate(size, lim)
	if err != nil {
		return nil, err
	}
	h.head = head
	for _, i := range h.active {
		k := raw.Keyslots[i]
		m := make([]byte, int(raw.KeyBytes)*stripes1)
		if n, err := r.ReadAt(m, int64(k.Offset)*sector1); n < len(m) {
			return nil, fmt.Errorf("reading its key material: %w", hint.Disk(err))
		}
		h.keys.Slots = append(h.keys.Slots, luks2.Keyslot1{ID: i, Salt: k.Salt, Iterations: k.Iterations, Material: m})
	}
	return h, nil
}

// unchanged compares header and key material with what was read.
func (h *header1) unchanged(r io.ReaderAt) error {
	now := make([]byte, size1)
	if n, err := r.ReadAt(now, 0); n < len(now) {
		return fmt.Errorf("reading it again: %w", hint.Disk(err))
	} else if !bytes.Equal(now, h.head) {
		return ErrChanged
	}
	for _, k := range h.keys.Slots {
		m := make([]byte, len(k.Material))
		if n, err := r.ReadAt(m, int64(h.raw.Keyslots[k.ID].Offset)*sector1); n < len(m) {
			return fmt.Errorf("reading it again: %w", hint.Disk(err))
		} else if !bytes.Equal(m, k.Material) {
			return ErrChanged
		}
	}
	return nil
}

// validate returns the header, without key material, for a device of size bytes.
func (raw *raw1) validate(size int64, lim Limits) (*header1, error) {
	cipher, mode, hash := raw.CipherName, raw.CipherMode, raw.HashSpec
	if err := luks2.CheckCipher(cipher + "-" + mode); err != nil {
		return nil, hint.With(fmt.Errorf("cipher %q in mode %q is not aes in xts-plain64, xts-plain or cbc-essiv:sha256", cipher, mode), hint.Of(err))
	}
	if !luks2.KnownHash(hash) {
		return nil, hint.With(fmt.Errorf("hash %q is not supported", hash), luks2.HashAdvice)
	}
	h := &header1{raw: raw, offset: int64(raw.PayloadOffset) * sector1}
	h.keys = luks2.Keyslots1{Cipher: cipher + "-" + mode, Hash: hash, KeySize: int(raw.KeyBytes),
		Digest: raw.Digest, DigestSalt: raw.DigestSalt, DigestIterations: raw.DigestIter}
	if err := h.keys.Check(lim); err != nil {
		return nil, fmt.Errorf("cipher %q in mode %q: %w", cipher, mode, err)
	}
	if !luks2.ValidUUID(h.raw.UUID) {
		return nil, fmt.Errorf("%q is not a UUID", h.raw.UUID)
	}
	// Free keyslots have a place too, but nothing in it that counts.
	material := int64(raw.KeyBytes) * stripes1
	var areas []int64
	for i, k := range raw.Keyslots {
		switch k.Active {
		case disabled1:
			continue
		case enabled1:
		default:
			return nil, fmt.Errorf("keyslot %d is neither in use nor free", i)
		}
		if k.Stripes != stripes1 {
			return nil, fmt.Errorf("keyslot %d has %d stripes, not %d", i, k.Stripes, stripes1)
		}
		if k.Iterations < 1 {
			return nil, fmt.Errorf("keyslot %d has no iterations", i)
		}
		if k.Iterations <= lim.MaxIterations() { // else it cannot be opened here, but others can
			h.active = append(h.active, i)
		}
		areas = append(areas, int64(k.Offset)*sector1)
	}
	sort.Slice(areas, func(i, j int) bool { return areas[i] < areas[j] })
	end := int64(size1)
	for _, start := range areas {
		if start < end {
			return nil, fmt.Errorf("key material at byte %d overlaps what is before it", start)
		}
		end = start + material
	}
	switch {
	case end > maxImage1:
		return nil, fmt.Errorf("key material ends at byte %d, beyond %d", end, maxImage1)
	case h.offset == 0:
		return nil, hint.With(fmt.Errorf("payload at byte 0 begins before the key material ends, at byte %d: a detached header", end), luks2.DetachedAdvice)
	case end > h.offset:
		return nil, fmt.Errorf("payload at byte %d begins before the key material ends, at byte %d", h.offset, end)
	case h.offset >= size:
		return nil, fmt.Errorf("payload at byte %d of a device of %d bytes", h.offset, size)
	}
	h.size = (size - h.offset) / sector1 * sector1
	return h, nil
}

// text1 returns the text before the first NUL.
func text1(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// open tries the passphrase on all keyslots. The caller wipes the payload.
func (h *header1) open(ctx context.Context, d *Deriver) (*Payload, error) {
	if len(h.active) == 0 {
		return nil, errNoSlot1
	}
	key, err := h.keys.Open(ctx, d)
	if err != nil {
		return nil, err
	}
	p := h.payload()
	p.Key = key
	return p, nil
}

// payload is without the key.
func (h *header1) payload() *Payload {
	return &Payload{UUID: h.raw.UUID, Type: "LUKS1", Cipher: h.keys.Cipher, Offset: h.offset, Size: h.size, SectorSize: sector1}
}

var errNoSlot1 = hint.New("no LUKS1 keyslot to try", "the header has no keyslot, or only such as would take this machine hours; cryptsetup luksDump shows them")
