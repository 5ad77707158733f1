package enrollment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

// Rotation replaces the passphrase of a volume: the one that its published
// ciphertext holds. Published is the ciphertext from which a boot gets the
// passphrase: in an object outside the disks, or in the aws-kms token of each disk.
//
// In this order, each step on all disks before the next one, and each step of a
// single durable write:
//
//  1. a pending token with the new ciphertext, and with the keyslots to retire;
//  2. a keyslot for the new passphrase;
//  3. the new ciphertext is published;
//  4. the retired keyslots are removed;
//  5. the pending token is removed.
//
// Until 3 is complete the old passphrase opens all disks, from 2 on the new one
// does; so does, at any time, the one that is published. A rotation that finds
// pending tokens goes on with the ciphertext in them.
type Rotation struct {
	// New makes a passphrase and its ciphertext; the passphrase is wiped here.
	New func(ctx context.Context) (*secret.Bytes, keys.Blob, error)
	// Decrypt returns the passphrase in a ciphertext, which is wiped here.
	Decrypt func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error)
	// Object is the ciphertext as it is published outside the disks, and Publish
	// replaces it. Nil: it is in the disks' tokens.
	Object  []byte
	Publish func(ctx context.Context, b keys.Blob) error
	// Log is told of each step.
	Log func(format string, args ...any)
}

// Rotate replaces the passphrase of the set.
func (s *Set) Rotate(ctx context.Context, r Rotation) error {
	pending, found, err := s.pending()
	if err != nil {
		return err
	}
	var fresh *secret.Bytes
	if found {
		r.Log("going on with a rotation that was interrupted")
		fresh, err = r.Decrypt(ctx, pending.Ciphertext)
	} else {
		if _, err := s.old(ctx, r, nil); err != nil { // before anything is made
			return err
		}
		fresh, pending, err = r.New(ctx)
	}
	if err != nil {
		return err
	}
	defer fresh.Wipe()
	if published, err := s.published(r, pending); err != nil {
		return err
	} else if !published {
		if err := s.introduce(ctx, r, fresh, pending); err != nil {
			return err
		}
	}
	if err := s.Check(ctx, fresh); err != nil {
		return fmt.Errorf("the new key was published, but %w", err)
	}
	return s.retire(r)
}

// pending returns the ciphertext of a rotation that is under way.
func (s *Set) pending() (keys.Blob, bool, error) {
	for _, d := range s.Disks {
		if t, _, ok, err := d.find(typePending); ok || err != nil {
			return keys.Blob{Ciphertext: t.Ciphertext, KeyARN: t.Key, Context: t.Context}, ok, err
		}
	}
	return keys.Blob{}, false, nil
}

// Pending reports whether a rotation was begun and not finished.
func (s *Set) Pending() (bool, error) {
	_, ok, err := s.pending()
	return ok, err
}

// published reports whether a boot gets the new ciphertext, from whichever disk.
func (s *Set) published(r Rotation, b keys.Blob) (bool, error) {
	if r.Publish != nil {
		return bytes.Equal(r.Object, b.Ciphertext), nil
	}
	for _, d := range s.Disks {
		t, ok, err := d.header.KMS()
		if err != nil || !ok || !bytes.Equal(t.Ciphertext, b.Ciphertext) {
			return false, err
		}
	}
	return true, nil
}

var errNoToken = errors.New("no disk has an aws-kms token: add one with unlockctl enroll")

// old returns a passphrase, published and not the new one, that opens all disks.
// The caller wipes it.
func (s *Set) old(ctx context.Context, r Rotation, fresh []byte) (*secret.Bytes, error) {
	ciphertext := r.Object
	if r.Publish == nil {
		for _, d := range s.Disks {
			t, ok, err := d.header.KMS()
			if err != nil {
				return nil, err
			}
			if ok && !bytes.Equal(t.Ciphertext, fresh) {
				ciphertext = t.Ciphertext
			}
		}
	}
	if ciphertext == nil {
		return nil, errNoToken
	}
	old, err := r.Decrypt(ctx, ciphertext)
	if err != nil {
		return nil, err
	}
	if err := s.Check(ctx, old); err != nil {
		old.Wipe()
		return nil, fmt.Errorf("the published key: %w", err)
	}
	return old, nil
}

// introduce is steps 1 to 3.
func (s *Set) introduce(ctx context.Context, r Rotation, fresh *secret.Bytes, b keys.Blob) error {
	old, err := s.old(ctx, r, b.Ciphertext)
	if err != nil {
		return err
	}
	defer old.Wipe()
	for _, d := range s.Disks {
		if _, _, ok, err := d.find(typePending); err != nil {
			return err
		} else if ok {
			continue
		}
		ids, err := d.slotsOf(ctx, old)
		if err != nil {
			return err
		}
		var retired []string
		for _, id := range ids {
			retired = append(retired, strconv.Itoa(id))
		}
		if err := d.put(typePending, b, retired); err != nil {
			return err
		}
		r.Log("%s: keyslot %v is to be replaced", d.Path, retired)
	}
	for _, d := range s.Disks {
		if ok, err := d.opens(ctx, fresh); err != nil {
			return err
		} else if ok {
			continue
		}
		slot, err := d.add(ctx, old, fresh, false)
		if err != nil {
			return err
		}
		r.Log("%s: keyslot %s has the new key", d.Path, slot)
	}
	if r.Publish != nil {
		return r.Publish(ctx, b)
	}
	for _, d := range s.Disks {
		ids, err := d.slotsOf(ctx, fresh)
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return fmt.Errorf("%s: %w", d.Path, luks.ErrPassphrase)
		}
		if err := d.put(TypeKMS, b, []string{strconv.Itoa(ids[0])}); err != nil {
			return err
		}
		r.Log("%s: the token holds the new key", d.Path)
	}
	return nil
}

// retire is steps 4 and 5.
func (s *Set) retire(r Rotation) error {
	for _, d := range s.Disks {
		t, _, ok, err := d.find(typePending)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for _, slot := range t.Keyslots {
			if err := d.kill(slot); err != nil {
				return err
			}
			r.Log("%s: keyslot %s is gone", d.Path, slot)
		}
	}
	for _, d := range s.Disks {
		_, id, ok, err := d.find(typePending)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := d.header.RemoveToken(d.dev, id); err != nil {
			return fmt.Errorf("removing token %d of %s: %w", id, d.Path, err)
		}
	}
	return nil
}

// Rewrap replaces the ciphertexts in the aws-kms tokens by those that wrap returns;
// keyslots and passphrases stay. Equal ciphertexts are wrapped once and stay equal.
// Tokens under the key named already are left alone.
func (s *Set) Rewrap(ctx context.Context, key string, wrap func(ctx context.Context, t luks.KMSToken) (keys.Blob, error)) (changed int, err error) {
	if pending, err := s.Pending(); err != nil {
		return 0, err
	} else if pending {
		return 0, errors.New("a rotation of the passphrase was interrupted: finish it first with unlockctl rotate --passphrase")
	}
	done := map[string]keys.Blob{}
	found := false
	for _, d := range s.Disks {
		t, ok, err := d.header.KMS()
		if err != nil {
			return changed, err
		}
		if !ok {
			continue
		}
		found = true
		if t.Key == key {
			continue
		}
		b, ok := done[string(t.Ciphertext)]
		if !ok {
			if b, err = wrap(ctx, t); err != nil {
				return changed, err
			}
			done[string(t.Ciphertext)] = b
		}
		if err := d.put(TypeKMS, b, t.Keyslots); err != nil {
			return changed, err
		}
		changed++
	}
	if !found {
		return 0, errNoToken
	}
	return changed, nil
}
