package enrollment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

// Set is one disk, or all those of a striped volume: they share their keys.
type Set struct {
	UUID  string // that the encryption context of a data key is bound to
	Disks []*Disk
}

// OpenSet opens the disks of one volume.
func OpenSet(paths []string, dry bool) (*Set, error) {
	var disks []*Disk
	for _, p := range paths {
		d, err := Open(p, dry)
		if err != nil {
			(&Set{Disks: disks}).Close()
			return nil, err
		}
		disks = append(disks, d)
	}
	s, err := NewSet(disks)
	if err != nil {
		(&Set{Disks: disks}).Close()
		return nil, err
	}
	return s, nil
}

// NewSet checks that the disks are those of one volume.
func NewSet(disks []*Disk) (*Set, error) {
	s := &Set{Disks: disks}
	seen := map[int]string{}
	for _, d := range disks {
		t, ok, err := d.header.Set()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Path, err)
		}
		uuid := d.header.UUID()
		if ok {
			uuid = t.UUID
		}
		if s.UUID == "" {
			s.UUID = uuid
		}
		switch {
		case uuid != s.UUID:
			return nil, fmt.Errorf("%s and %s belong to different volumes: change one volume at a time", disks[0].Path, d.Path)
		case seen[t.Index] != "":
			return nil, fmt.Errorf("%s and %s are the same disk of the volume", seen[t.Index], d.Path)
		case t.Ephemeral:
			return nil, fmt.Errorf("%s is an ephemeral volume, whose key was thrown away on purpose", d.Path)
		case t.Copies != 0 && t.Count != len(disks):
			return nil, hint.With(fmt.Errorf("%s is one of %d disks of a mirror: name them all", d.Path, t.Count), "unlockctl join first, where one is missing")
		case t.Chunk != 0 && t.Count != len(disks):
			return nil, fmt.Errorf("%s is one of %d disks of a stripe: name them all", d.Path, t.Count)
		}
		seen[t.Index] = d.Path
	}
	return s, nil
}

// Close closes the disks.
func (s *Set) Close() error {
	var errs []error
	for _, d := range s.Disks {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// KMS returns the aws-kms token of the volume, from its first disk that has one.
func (s *Set) KMS() (luks.KMSToken, bool, error) {
	for _, d := range s.Disks {
		if t, ok, err := d.header.KMS(); ok || err != nil {
			return t, ok, err
		}
	}
	return luks.KMSToken{}, false, nil
}

// ErrEnrolled: the volume has a key of this kind already.
var ErrEnrolled = errors.New("the volume has one already")

// Vacant returns ErrEnrolled if any disk has a token of the type.
func (s *Set) Vacant(typ string) error {
	for _, d := range s.Disks {
		tokens, err := d.Tokens()
		if err != nil {
			return err
		}
		if slices.ContainsFunc(tokens, func(t Token) bool { return t.Type == typ }) {
			return fmt.Errorf("%s, token %s: %w", d.Path, typ, ErrEnrolled)
		}
	}
	return nil
}

// Check returns an error unless the passphrase opens all disks.
func (s *Set) Check(ctx context.Context, passphrase *secret.Bytes) error {
	for _, d := range s.Disks {
		p, err := d.header.Open(ctx, passphrase)
		if err != nil {
			return fmt.Errorf("opening %s: %w", d.Path, err)
		}
		p.Wipe()
	}
	return nil
}

// AddSealed adds a keyslot for a passphrase that is sealed in a place to all disks,
// and a token that says where, for people to read; slow for typed ones. Disks that the
// passphrase opens already are left alone.
func (s *Set) AddSealed(ctx context.Context, existing, added *secret.Bytes, slow bool, t SealedToken) error {
	return s.enroll(ctx, existing, added, slow, func(d *Disk, slot string) error {
		t.Keyslots = []string{slot}
		return d.putSealed(t)
	})
}

// AddKMS adds a keyslot for a data key's passphrase and the token that holds it
// encrypted. A keyslot whose token cannot be written is removed again.
func (s *Set) AddKMS(ctx context.Context, existing, added *secret.Bytes, b keys.Blob) error {
	return s.enroll(ctx, existing, added, false, func(d *Disk, slot string) error { return d.put(TypeKMS, b, []string{slot}) })
}

// AddRecovery adds a keyslot for a recovery key and systemd's token for it. A key
// of 256 random bits needs no slow derivation; systemd-cryptenroll does as much.
func (s *Set) AddRecovery(ctx context.Context, existing, key *secret.Bytes) error {
	return s.enroll(ctx, existing, key, false, func(d *Disk, slot string) error {
		raw, err := json.Marshal(Token{Type: TypeRecovery, Keyslots: []string{slot}})
		if err != nil {
			return err
		}
		return d.putRaw(TypeRecovery, raw)
	})
}

func (s *Set) enroll(ctx context.Context, existing, added *secret.Bytes, slow bool, then func(d *Disk, slot string) error) error {
	if err := s.Check(ctx, existing); err != nil {
		return err
	}
	for _, d := range s.Disks {
		if ok, err := d.opens(ctx, added); err != nil {
			return err
		} else if ok {
			continue
		}
		slot, err := d.add(ctx, existing, added, slow)
		if err != nil {
			return err
		}
		if err := then(d, slot); err != nil {
			return errors.Join(err, d.kill(slot))
		}
	}
	return nil
}

// Remove removes the tokens of a type and their keyslots. proof is a passphrase
// that must still open every disk afterwards.
func (s *Set) Remove(ctx context.Context, typ string, proof *secret.Bytes) error {
	found := false
	doomed := make([]map[string]bool, len(s.Disks))
	for i, d := range s.Disks {
		tokens, err := d.Tokens()
		if err != nil {
			return err
		}
		doomed[i] = map[string]bool{}
		for _, t := range tokens {
			if t.Type == typ {
				found = true
				for _, slot := range t.Keyslots {
					doomed[i][slot] = true
				}
			}
		}
		left, err := d.without(func(id int) bool { return doomed[i][fmt.Sprint(id)] })
		if err != nil {
			return fmt.Errorf("%s: %w", d.Path, err)
		}
		if ok, err := left.opens(ctx, proof); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("%s would not open any more with the passphrase given, which must be one that stays: %w", d.Path, luks.ErrPassphrase)
		}
	}
	if !found {
		return hint.With(fmt.Errorf("%s has no %s token", s.Disks[0].Path, typ), "unlockctl list shows what it has")
	}
	for i, d := range s.Disks {
		for slot := range doomed[i] {
			if !slices.Contains(slots(d), slot) {
				continue
			}
			if err := d.kill(slot); err != nil {
				return err
			}
		}
		tokens, err := d.Tokens()
		if err != nil {
			return err
		}
		for _, t := range tokens {
			if t.Type != typ {
				continue
			}
			if err := d.header.RemoveToken(d.dev, t.ID); err != nil {
				return fmt.Errorf("removing token %d of %s: %w", t.ID, d.Path, err)
			}
		}
	}
	return nil
}

func slots(d *Disk) []string {
	var list []string
	for _, id := range d.header.Keyslots() {
		list = append(list, fmt.Sprint(id))
	}
	return list
}
