package luks2

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"unlock/internal/hint"
	"unlock/internal/luks/material"
)

// copyState is what was found where one copy of the header may be.
type copyState struct {
	offset int64
	magic  bool
	bin    binary
	whole  []byte // header and JSON area; nil unless the checksum is right
	json   []byte // part of whole
	err    error  // why not
}

// trouble orders copies that cannot be used: absent, unreadable, damaged.
func (c copyState) trouble() int {
	switch {
	case c.magic:
		return 2
	case !errors.Is(c.err, ErrNotLUKS):
		return 1
	}
	return 0
}

// Read reads and validates the header of a device of size bytes, and the key
// material of its keyslots: r is not used afterwards. Which copy counts follows
// cryptsetup, but for one thing: a copy that was written as it is (its checksum is
// right) and makes no sense is never replaced by an older one. No lock is taken: a
// copy that somebody is writing looks damaged, and the other one serves.
//
// ErrNotLUKS: no LUKS2 magic in any place where one may be; it is an *Interrupted
// if Format was cut short. Any other error: it is LUKS2, or cannot be
// read, and must not be touched.
func Read(r io.ReaderAt, size int64, lim Limits) (*Header, error) {
	r = readAhead(r, size)
	primary := readCopy(r, size, 0)
	at := headerSizes[:]
	if primary.json != nil {
		at = []int64{primary.bin.size}
	}
	secondary := copyState{err: ErrNotLUKS}
	for _, offset := range at {
		c := readCopy(r, size, offset)
		if c.json != nil {
			secondary = c
			break
		}
		if secondary.offset == 0 || c.trouble() > secondary.trouble() {
			secondary = c
		}
	}
	if primary.json == nil && secondary.json == nil {
		if err := interrupted(r, size); err != nil {
			return nil, err
		}
		return nil, noHeader(primary, secondary)
	}
	if !primary.magic {
		if err := foreign(r, secondary.offset); err != nil {
			return nil, err
		}
	}
	return choose(r, size, primary, secondary, lim)
}

// ahead has the first bytes of a device: as a rule all of both headers, so that they are
// one read and not four.
type ahead struct {
	io.ReaderAt
	first []byte
}

// readAhead reads the first 32 KiB. What cannot be read with the rest is tried alone.
func readAhead(r io.ReaderAt, size int64) ahead {
	first := make([]byte, min(2*headerSizes[0], size))
	n, _ := r.ReadAt(first, 0)
	return ahead{r, first[:n]}
}

func (a ahead) ReadAt(b []byte, offset int64) (int, error) {
	if end := offset + int64(len(b)); end <= int64(len(a.first)) {
		return copy(b, a.first[offset:end]), nil
	}
	return a.ReaderAt.ReadAt(b, offset)
}

// noHeader says why neither copy can be used.
func noHeader(primary, secondary copyState) error {
	for _, c := range []copyState{primary, secondary} {
		if c.trouble() == 1 {
			return c.err
		}
	}
	const advice = "cryptsetup luksDump and cryptsetup repair may tell more; nothing was changed"
	if primary.magic {
		return hint.With(fmt.Errorf("both copies of the LUKS2 header are damaged: primary: %w", primary.err), advice)
	}
	if secondary.magic {
		return hint.With(fmt.Errorf("primary LUKS2 header is missing, secondary at byte %d is damaged: %w", secondary.offset, secondary.err), advice)
	}
	return ErrNotLUKS
}

// readCopy reads the copy at offset as far as it makes sense.
func readCopy(r io.ReaderAt, devSize, offset int64) (c copyState) {
	c.offset = offset
	if offset+binSize > devSize {
		c.err = ErrNotLUKS
		return c
	}
	head := make([]byte, binSize)
	if c.err = readFull(r, head, offset); c.err != nil {
		return c
	}
	if c.magic = hasMagic(head, offset); !c.magic {
		c.err = ErrNotLUKS
		return c
	}
	if c.bin, c.err = parseBinary(head, offset); c.err != nil {
		return c
	}
	if offset+c.bin.size > devSize {
		c.err = fmt.Errorf("header of %d bytes does not fit on the device", c.bin.size)
		return c
	}
	whole := make([]byte, c.bin.size)
	copy(whole, head)
	if c.err = readFull(r, whole[binSize:], offset+binSize); c.err != nil {
		return c
	}
	if !checksumValid(whole) {
		c.err = errors.New("wrong checksum")
		return c
	}
	c.whole, c.json = whole, whole[binSize:]
	return c
}

// readFull reads all of b from offset.
func readFull(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes from byte %d: %w", len(b), offset, hint.Disk(err))
}

// choose takes the newest copy that is valid.
func choose(r io.ReaderAt, devSize int64, primary, secondary copyState, lim Limits) (*Header, error) {
	copies := []copyState{primary, secondary}
	names := []string{"primary", "secondary"}
	first := 0
	if primary.json == nil || secondary.json != nil && secondary.bin.seqid > primary.bin.seqid {
		first = 1
	}
	h, err := validate(copies[first], devSize, lim)
	other := 1 - first
	if err != nil {
		// The same update wrote both, so the other may speak for it.
		if copies[other].json == nil || copies[other].bin.seqid != copies[first].bin.seqid {
			return nil, fmt.Errorf("%s LUKS2 header: %w", names[first], err)
		}
		h2, err2 := validate(copies[other], devSize, lim)
		if err2 != nil {
			return nil, fmt.Errorf("%s LUKS2 header: %w", names[first], err)
		}
		h2.notes = append(h2.notes, fmt.Sprintf("%s LUKS2 header is not valid (%v), using the %s", names[first], err, names[other]))
		h, first, other = h2, other, first
	} else if o := copies[other]; o.json == nil {
		h.notes = append(h.notes, fmt.Sprintf("%s LUKS2 header is damaged (%v), using the %s", names[other], o.err, names[first]))
	} else if o.bin.seqid != h.seqid {
		h.notes = append(h.notes, fmt.Sprintf("%s LUKS2 header is out of date (sequence id %d, not %d), using the %s", names[other], o.bin.seqid, h.seqid, names[first]))
	} else {
		// cryptsetup takes the primary of two equals, and so do we; but a copy that
		// differs is not one to fall back on.
		h.good[other] = o.bin == h.binary && bytes.Equal(o.json, copies[first].json)
		if !h.good[other] {
			h.notes = append(h.notes, fmt.Sprintf("%s LUKS2 header differs from the %s, using the latter", names[other], names[first]))
		}
	}
	h.good[first] = true
	h.copies = [2][]byte{primary.whole, secondary.whole}
	h.readMaterials(r)
	return h, nil
}

// validate makes a Header of a copy whose checksum is right.
func validate(c copyState, devSize int64, lim Limits) (*Header, error) {
	if !ValidUUID(c.bin.uuid) {
		return nil, fmt.Errorf("%.40q is not a UUID", c.bin.uuid)
	}
	text, padding, found := bytes.Cut(c.json, []byte{0})
	if !found || len(bytes.TrimLeft(padding, "\x00")) > 0 {
		return nil, errors.New("metadata are not followed by zeros only")
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("metadata of %d bytes are longer than %d", len(text), maxText)
	}
	if err := checkJSON(text); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	doc, err := parseObject(bytes.Clone(text)) // which an update of the header does not change
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	meta, err := parseMetadata(doc, c.bin.size, devSize, lim)
	if err != nil {
		return nil, err
	}
	return &Header{binary: c.bin, doc: doc, meta: meta, devSize: devSize, limits: lim, notes: meta.notes}, nil
}

// ValidUUID reports whether s has the form 8-4-4-4-12. It becomes part of dm
// names and key descriptions.
func ValidUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		}
	}
	return true
}

// readMaterials reads the key material of all keyslots that can open the volume.
// One that cannot be read does not stand in the way of the others.
func (h *Header) readMaterials(r io.ReaderAt) {
	h.materials = map[int][]byte{}
	for i := range h.meta.keyslots {
		k := &h.meta.keyslots[i]
		if k.broken == nil && k.bound {
			b := make([]byte, material.Size(k.keySize))
			if err := readFull(r, b, k.offset); err != nil {
				k.broken = err
			} else {
				h.materials[k.id] = b
			}
		}
		if k.broken != nil {
			h.notes = append(h.notes, fmt.Sprintf("keyslot %d cannot be used: %v", k.id, k.broken))
		}
	}
}
