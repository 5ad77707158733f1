package luks2

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"unlock/internal/luks/material"
	"unlock/internal/secret"
)

// AddKeyslot opens the volume with the existing passphrase and adds a keyslot for
// the added one; slow takes argon2id, for typed passphrases. It returns the id of
// the new keyslot. The key material is durable before the header names it.
func (h *Header) AddKeyslot(ctx context.Context, dev Device, existing, added *secret.Bytes, slow bool) (int, error) {
	if added.Len() == 0 {
		return 0, errors.New("empty passphrase")
	}
	opens, adds := NewDeriver(existing), NewDeriver(added)
	defer opens.Wipe()
	defer adds.Wipe()
	key, err := h.open(ctx, opens)
	if err != nil {
		return 0, err
	}
	defer key.Wipe()
	id := 0
	err = h.update(dev, func(now *Header) (object, error) {
		// The key must be that of the header on the device.
		if err := now.meta.digest.verify(ctx, key); err != nil {
			return nil, err
		}
		var err error
		if id, err = freeID(maxKeyslots, now.meta.hasKeyslot); err != nil {
			return nil, fmt.Errorf("keyslots: %w", err)
		}
		offset, err := now.meta.freeArea(now.size, roundUp(int64(material.Size(key.Len()))))
		if err != nil {
			return nil, err
		}
		slot, area, err := newKeyslot(key, adds, offset, slow, now.limits)
		if err != nil {
			return nil, err
		}
		name := strconv.Itoa(id)
		next, err := now.doc.edit("keyslots", func(o object) (object, error) { return o.with(name, slot), nil })
		if err != nil {
			return nil, err
		}
		next, err = next.edit("digests", func(o object) (object, error) {
			return o.edit(strconv.Itoa(now.meta.digest.id), func(d object) (object, error) {
				return d.editKeyslots(func(ids []string) []string { return append(ids, name) })
			})
		})
		if err != nil {
			return nil, err
		}
		if err := writeAt(dev, area, offset); err != nil {
			return nil, fmt.Errorf("key material: %w", err)
		}
		return next, nil
	})
	return id, err
}

// KillKeyslot removes a keyslot from the header, tokens and digests, and then
// overwrites its key material. The last one that opens the volume is refused. After
// a crash in between, the keyslot is gone from the header, but its material may
// still be on the device.
func (h *Header) KillKeyslot(dev Device, id int) error {
	unlock, err := lock(dev)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := h.current(dev)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(now.meta.keyslots, func(k keyslot) bool { return k.id == id })
	if i < 0 {
		return fmt.Errorf("there is no keyslot %d", id)
	}
	victim := now.meta.keyslots[i]
	left := slices.ContainsFunc(now.meta.keyslots, func(k keyslot) bool { return k.id != id && k.bound && k.broken == nil && k.priority != priorityIgnore })
	if victim.bound && !left {
		return fmt.Errorf("keyslot %d is the last that opens the volume", id)
	}
	name := strconv.Itoa(id)
	next, err := now.doc.edit("keyslots", func(o object) (object, error) { return o.without(name), nil })
	for _, group := range []string{"tokens", "digests"} {
		if err == nil {
			next, err = next.edit(group, func(o object) (object, error) { return o.forgetKeyslot(name, group == "digests") })
		}
	}
	if err != nil {
		return err
	}
	if err := now.change(dev, next); err != nil {
		return err
	}
	*h = *now
	noise := make([]byte, victim.size)
	rand.Read(noise)
	if err := writeAt(dev, noise, victim.offset); err != nil {
		return fmt.Errorf("keyslot %d is gone, but its key material could not be overwritten: %w", id, err)
	}
	return nil
}

// forgetKeyslot removes the keyslot from the arrays "keyslots" of all members of
// o; with prune, members that then have neither keyslots nor segments go too.
func (o object) forgetKeyslot(name string, prune bool) (object, error) {
	next := object{}
	for _, m := range o {
		child, err := parseObject(m.value)
		if err != nil {
			return nil, err
		}
		empty := false
		raw, _ := child.get("keyslots")
		var ids []string
		if err := json.Unmarshal(raw, &ids); err != nil {
			return nil, err
		}
		if !slices.Contains(ids, name) {
			next = append(next, m)
			continue
		}
		child, err = child.editKeyslots(func(ids []string) []string {
			ids = slices.DeleteFunc(ids, func(s string) bool { return s == name })
			empty = len(ids) == 0
			return ids
		})
		if err != nil {
			return nil, err
		}
		if segments, _ := child.get("segments"); prune && empty && string(segments) == "[]" {
			continue
		}
		next = append(next, member{m.name, child.encode()})
	}
	return next, nil
}

// editKeyslots changes the array "keyslots" of o.
func (o object) editKeyslots(f func(ids []string) []string) (object, error) {
	raw, _ := o.get("keyslots")
	ids := []string{}
	if err := json.Unmarshal(raw, &ids); err != nil {
		return nil, err
	}
	return o.with("keyslots", encode(f(ids))), nil
}
