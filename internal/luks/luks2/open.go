package luks2

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sort"

	"unlock/internal/hint"
	"unlock/internal/luks/material"
	"unlock/internal/secret"
)

// Open tries the passphrase on the keyslots, preferred ones first, those of
// priority "ignore" not at all, and returns the payload, which the caller wipes.
// A keyslot that is broken does not stand in the way of the others.
//
// ErrPassphrase: keyslots were tried, and none opens. Other errors: there is none
// to try, or ctx ended.
func (h *Header) Open(ctx context.Context, passphrase *secret.Bytes) (*Payload, error) {
	d := NewDeriver(passphrase)
	defer d.Wipe()
	return h.OpenWith(ctx, d)
}

// OpenWith is Open with a passphrase that several volumes share.
func (h *Header) OpenWith(ctx context.Context, d *Deriver) (*Payload, error) {
	key, err := h.open(ctx, d)
	if err != nil {
		return nil, err
	}
	p := h.Payload()
	p.Key = key
	return p, nil
}

// Payload returns what Open does, without the key.
func (h *Header) Payload() *Payload {
	return &Payload{
		UUID: h.uuid, Type: "LUKS2", Cipher: h.meta.segment.cipher.name, Digest: h.meta.digest.id,
		Offset: h.meta.segment.offset, Size: h.meta.segment.size,
		SectorSize: h.meta.segment.sectorSize, IVOffset: h.meta.segment.ivOffset,
		Flags: slices.Clone(h.meta.flags),
	}
}

const unusable = "give the volume a keyslot of the kinds that unlock opens: cryptsetup luksAddKey --pbkdf pbkdf2; cryptsetup luksDump shows those that it has"

// open returns the volume key, which the caller wipes.
func (h *Header) open(ctx context.Context, d *Deriver) (*secret.Bytes, error) {
	var candidates []keyslot
	var broken []error
	for _, k := range h.meta.keyslots {
		switch {
		case !k.bound || k.priority == priorityIgnore:
		case k.broken != nil:
			broken = append(broken, fmt.Errorf("keyslot %d: %w", k.id, k.broken))
		default:
			candidates = append(candidates, k)
		}
	}
	sort.SliceStable(candidates, func(i, j int) bool { return candidates[i].priority > candidates[j].priority })
	tried := false
	for _, k := range candidates {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("trying keyslot %d: %w", k.id, context.Cause(ctx))
		}
		var key *secret.Bytes
		var err error
		secret.Do(func() { key, err = h.try(ctx, k, d) })
		switch {
		case err == nil:
			return key, nil
		case errors.Is(err, ErrPassphrase):
			tried = true
		default:
			broken = append(broken, fmt.Errorf("keyslot %d: %w", k.id, err))
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("trying keyslots: %w", context.Cause(ctx))
	case tried && len(broken) == 0:
		return nil, ErrPassphrase
	case tried:
		return nil, fmt.Errorf("%w; not tried: %w", ErrPassphrase, errors.Join(broken...))
	case len(broken) > 0:
		return nil, hint.With(fmt.Errorf("no keyslot can be used: %w", errors.Join(broken...)), unusable)
	}
	return nil, hint.With(errors.New("no keyslot to try"), "cryptsetup config --priority normal --key-slot N lets a keyslot be tried again that was set to be ignored")
}

// KeyslotsOf returns the ids of all keyslots that the passphrase opens, also those that
// Open does not try for their priority. What cannot be used is left out.
func (h *Header) KeyslotsOf(ctx context.Context, d *Deriver) ([]int, error) {
	var ids []int
	for _, k := range h.meta.keyslots {
		if !k.bound || k.broken != nil {
			continue
		}
		var key *secret.Bytes
		var err error
		secret.Do(func() { key, err = h.try(ctx, k, d) })
		switch {
		case err == nil:
			key.Wipe()
			ids = append(ids, k.id)
		case !errors.Is(err, ErrPassphrase):
			return nil, fmt.Errorf("trying keyslot %d: %w", k.id, err)
		}
	}
	return ids, nil
}

// try opens one keyslot. The caller wipes the key.
func (h *Header) try(ctx context.Context, k keyslot, d *Deriver) (*secret.Bytes, error) {
	kek, err := d.derive(ctx, k.kdf, k.areaKey)
	if err != nil {
		return nil, err
	}
	key := secret.New(k.keySize)
	err = material.Unseal(key.Bytes(), h.materials[k.id], kek.Bytes(), k.cipher.sectors, newHash(k.afHash))
	if err == nil {
		err = h.meta.digest.verify(ctx, key)
	}
	if err != nil {
		key.Wipe()
		return nil, err
	}
	return key, nil
}

// verify returns ErrPassphrase unless key is the volume key.
func (d digest) verify(ctx context.Context, key *secret.Bytes) error {
	got := make([]byte, len(d.want))
	if err := d.kdf.derive(ctx, key, got); err != nil {
		return err
	}
	// An empty digest would be equal; parseMetadata has refused what is not of full length.
	if subtle.ConstantTimeCompare(got, d.want) != 1 {
		return ErrPassphrase
	}
	return nil
}
