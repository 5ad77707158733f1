package luks2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"unlock/internal/hint"
)

// writeAt writes and makes durable.
func writeAt(dev Device, b []byte, offset int64) error {
	if _, err := dev.WriteAt(b, offset); err != nil {
		return fmt.Errorf("writing %d bytes at byte %d: %w", len(b), offset, hint.Disk(err))
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("syncing after writing at byte %d: %w", offset, hint.Disk(err))
	}
	return nil
}

// writeCopy writes one copy, 0 the primary. A copy that is torn has no valid
// checksum, so one write and one sync will do.
func (h *Header) writeCopy(dev Device, i int) error {
	offset := int64(i) * h.size
	b, err := h.binary.encode(offset, h.doc.encode())
	if err != nil {
		return err
	}
	if err := writeAt(dev, b, offset); err != nil {
		return err
	}
	h.good[i], h.copies[i] = true, b
	return nil
}

// current returns h as it is on the device now; call it with the lock held.
func (h *Header) current(dev Device) (*Header, error) {
	now, err := Read(dev, h.devSize, h.limits)
	if err != nil {
		return nil, err
	}
	if now.binary != h.binary || !bytes.Equal(now.doc.encode(), h.doc.encode()) {
		return nil, ErrChanged
	}
	return now, nil
}

// Unchanged returns ErrChanged unless the valid copies of the header on r, and the key
// material, are still those that were read, byte for byte.
func (h *Header) Unchanged(r io.ReaderAt) error {
	same := func(was []byte, offset int64) error {
		now := make([]byte, len(was))
		if err := readFull(r, now, offset); err != nil {
			return err
		}
		if !bytes.Equal(now, was) {
			return ErrChanged
		}
		return nil
	}
	for i, was := range h.copies {
		if err := same(was, int64(i)*h.size); err != nil {
			return err
		}
	}
	for _, k := range h.meta.keyslots {
		if err := same(h.materials[k.id], k.offset); err != nil {
			return err
		}
	}
	return nil
}

// rehearse returns the header that writing bin and doc and reading them back would
// give, without the key material: what we write, we must be able to read.
func rehearse(bin binary, doc object, devSize int64, lim Limits) (*Header, error) {
	b, err := bin.encode(0, doc.encode())
	if err != nil {
		return nil, err
	}
	read, err := parseBinary(b, 0)
	if err == nil && read != bin {
		err = errors.New("label, subsystem or UUID would be cut off")
	}
	if err != nil {
		return nil, fmt.Errorf("refusing to write a LUKS2 header that is not valid: %w", err)
	}
	h, err := validate(copyState{bin: read, json: b[binSize:]}, devSize, lim)
	if err != nil {
		return nil, fmt.Errorf("refusing to write a LUKS2 header that is not valid: %w", err)
	}
	return h, nil
}

// change makes next, a changed document, the header on the device; call it with
// the lock held and on the Header that current returned. The copy that is damaged
// or out of date is written first, so that there is a good one at any time.
func (h *Header) change(dev Device, next object) error {
	if h.seqid == math.MaxUint64 {
		return errors.New("sequence id cannot grow any more")
	}
	bin := h.binary
	bin.seqid++
	n, err := rehearse(bin, next, h.devSize, h.limits)
	if err != nil {
		return err
	}
	order := [2]int{0, 1}
	if !h.good[1] {
		order = [2]int{1, 0}
	}
	for _, i := range order {
		if err := n.writeCopy(dev, i); err != nil {
			return err
		}
	}
	n.readMaterials(dev)
	*h = *n
	return nil
}

// update changes the document by f, crash-safely and under the lock.
func (h *Header) update(dev Device, f func(now *Header) (object, error)) error {
	unlock, err := lock(dev)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := h.current(dev)
	if err != nil {
		return err
	}
	next, err := f(now)
	if err != nil {
		return err
	}
	if err := now.change(dev, next); err != nil {
		return err
	}
	*h = *now
	return nil
}

// Repair rewrites the copy that is damaged or out of date, if there is one. Call
// it only after Open has succeeded: then the good copy is known to be true.
func (h *Header) Repair(dev Device) error {
	if !h.Damaged() {
		return nil
	}
	unlock, err := lock(dev)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := h.current(dev)
	if err != nil {
		return err
	}
	for i, good := range now.good {
		if good {
			continue
		}
		if err := now.writeCopy(dev, i); err != nil {
			return err
		}
	}
	h.good, h.copies = now.good, now.copies
	return nil
}

// PutToken writes a token, replacing the one that has the id; id -1 takes the
// first that is free. raw is a JSON object with "type" and "keyslots". It returns
// the id.
func (h *Header) PutToken(dev Device, id int, raw json.RawMessage) (int, error) {
	if err := checkJSON(raw); err != nil {
		return 0, fmt.Errorf("token: %w", err)
	}
	err := h.update(dev, func(now *Header) (object, error) {
		if id < 0 {
			var err error
			if id, err = freeID(maxKeyslots, now.hasToken); err != nil {
				return nil, fmt.Errorf("token: %w", err)
			}
		}
		return now.doc.edit("tokens", func(o object) (object, error) {
			return o.with(fmt.Sprint(id), raw), nil
		})
	})
	return id, err
}

// RemoveToken removes a token; it is no error if there is none.
func (h *Header) RemoveToken(dev Device, id int) error {
	if !h.hasToken(id) {
		return nil
	}
	return h.update(dev, func(now *Header) (object, error) {
		return now.doc.edit("tokens", func(o object) (object, error) {
			return o.without(fmt.Sprint(id)), nil
		})
	})
}

// Tokens returns all tokens by id.
func (h *Header) Tokens() []Token { return h.meta.tokens }

func (h *Header) hasToken(id int) bool {
	for _, t := range h.meta.tokens {
		if t.ID == id {
			return true
		}
	}
	return false
}
