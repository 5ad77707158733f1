package enrollment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"unlock/internal/hint"
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
//  1. a pending token with the new ciphertext, and with those it replaces;
//  2. a keyslot for the new passphrase;
//  3. the new ciphertext is published;
//  4. the keyslots that the replaced ciphertexts open are removed;
//  5. the pending token is removed.
//
// Until 3 is complete the old passphrase opens all disks, from 2 on the new one
// does; so does, at any time, the one that is published.
//
// Anybody who writes to a disk can put a pending token there, with a ciphertext
// whose passphrase has leaked. So none is ever published again: a rotation that was
// interrupted is begun anew, with a new passphrase, and what pending tokens name
// serves only to find keyslots that are to go. Their ciphertexts must decrypt as
// those of the rotation do, or nothing is done at all.
type Rotation struct {
	// New makes a passphrase and its ciphertext; the passphrase is wiped here.
	New func(ctx context.Context) (*secret.Bytes, keys.Blob, error)
	// Decrypt returns the passphrase in a ciphertext, which is wiped here. It must
	// hold the ciphertext against the operator's key and context.
	Decrypt func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error)
	// Object is the ciphertext as it is published outside the disks, and Publish
	// replaces it. Nil: it is in the disks' tokens.
	Object  []byte
	Publish func(ctx context.Context, b keys.Blob) error
	// Source of the object, as tokens name it that say where a passphrase is sealed.
	Source string
	// Log reports each step.
	Log func(format string, args ...any)
}

// Rotate replaces the passphrase of the set.
func (s *Set) Rotate(ctx context.Context, r Rotation) error {
	published, err := s.published(r)
	if err != nil {
		return err
	}
	old, err := decryptAll(ctx, r, published)
	defer old.wipe()
	if err != nil {
		return fmt.Errorf("the published key: %w", err)
	}
	current, err := s.current(ctx, old)
	if err != nil {
		return err
	}
	if err := s.abandon(ctx, r, published, old); err != nil {
		return err
	}
	fresh, b, err := r.New(ctx)
	if err != nil {
		return err
	}
	defer fresh.Wipe()
	if err := s.introduce(ctx, r, current, fresh, b, published); err != nil {
		return err
	}
	if err := s.Check(ctx, fresh); err != nil {
		return fmt.Errorf("the new key was published, but %w", err)
	}
	if err := s.retire(ctx, r, old, passphrases{fresh}); err != nil {
		return err
	}
	return s.forget()
}

// passphrases that were decrypted.
type passphrases []*secret.Bytes

func (p passphrases) wipe() {
	for _, s := range p {
		s.Wipe()
	}
}

func decryptAll(ctx context.Context, r Rotation, ciphertexts [][]byte) (passphrases, error) {
	var all passphrases
	for _, c := range ciphertexts {
		s, err := r.Decrypt(ctx, c)
		if err != nil {
			return all, err
		}
		all = append(all, s)
	}
	return all, nil
}

// published returns the ciphertexts from which a boot would get the passphrase:
// one, or several if publishing in the tokens was interrupted.
func (s *Set) published(r Rotation) ([][]byte, error) {
	if r.Publish != nil {
		return [][]byte{r.Object}, nil
	}
	var all [][]byte
	for _, d := range s.Disks {
		t, ok, err := d.header.KMS()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", d.Path, err)
		}
		if ok {
			all = with(all, t.Ciphertext)
		}
	}
	if len(all) == 0 {
		return nil, errNoToken
	}
	return all, nil
}

var errNoToken = errors.New("no disk has an aws-kms token: add one with unlockctl enroll")

// with appends a ciphertext that is not among all yet.
func with(all [][]byte, ciphertext []byte) [][]byte {
	if among(all, ciphertext) {
		return all
	}
	return append(slices.Clip(all), ciphertext)
}

func among(all [][]byte, ciphertext []byte) bool {
	return slices.ContainsFunc(all, func(c []byte) bool { return bytes.Equal(c, ciphertext) })
}

// current returns one of the passphrases that opens all disks.
func (s *Set) current(ctx context.Context, all passphrases) (*secret.Bytes, error) {
	var err error
	for _, p := range all {
		if err = s.Check(ctx, p); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the published key: %w", err)
}

// abandon removes the keyslots of an earlier rotation that was interrupted: those
// that a ciphertext in a pending token opens and none that is published does.
func (s *Set) abandon(ctx context.Context, r Rotation, published [][]byte, stay passphrases) error {
	left := published
	for _, d := range s.Disks {
		p, _, ok, err := d.pending()
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for _, c := range p.all() {
			left = with(left, c)
		}
	}
	var gone passphrases
	defer func() { gone.wipe() }()
	for _, c := range left[len(published):] {
		p, err := r.Decrypt(ctx, c)
		if err != nil {
			return s.misfit(c, err)
		}
		gone = append(gone, p)
	}
	if len(gone) > 0 {
		r.Log("a rotation was interrupted: it is begun anew")
	}
	return s.retire(ctx, r, gone, stay)
}

// misfit says which disk has the pending token with a ciphertext that does not decrypt.
func (s *Set) misfit(ciphertext []byte, err error) error {
	for _, d := range s.Disks {
		p, id, ok, _ := d.pending()
		if ok && among(p.all(), ciphertext) {
			return hint.With(fmt.Errorf("token %d of %s is of no rotation with this key and context: %w", id, d.Path, err),
				"if a rotation with another key or context was interrupted, name that one; "+removal(d, id))
		}
	}
	return err
}

// introduce is steps 1 to 3.
func (s *Set) introduce(ctx context.Context, r Rotation, current, fresh *secret.Bytes, b keys.Blob, published [][]byte) error {
	for _, d := range s.Disks {
		if err := d.putPending(b, published); err != nil {
			return err
		}
	}
	for _, d := range s.Disks {
		if ok, err := d.opens(ctx, fresh); err != nil {
			return err
		} else if ok {
			continue
		}
		slot, err := d.add(ctx, current, fresh, false)
		if err != nil {
			return err
		}
		r.Log("%s: keyslot %s has the new key", d.Path, slot)
	}
	if r.Publish != nil {
		if err := r.Publish(ctx, b); err != nil {
			return err
		}
		return s.moveSealed(ctx, r.Source, fresh)
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

// moveSealed has tokens that say where a passphrase is sealed name its new keyslot.
func (s *Set) moveSealed(ctx context.Context, source string, fresh *secret.Bytes) error {
	for _, d := range s.Disks {
		id, t, err := d.sealed(source)
		if err != nil {
			return err
		}
		if id < 0 {
			continue
		}
		ids, err := d.slotsOf(ctx, fresh)
		if err != nil {
			return err
		}
		t.Keyslots = nil
		for _, id := range ids {
			t.Keyslots = append(t.Keyslots, strconv.Itoa(id))
		}
		if err := d.putSealed(t); err != nil {
			return err
		}
	}
	return nil
}

// retire removes the keyslots that any of gone opens and none of stay.
func (s *Set) retire(ctx context.Context, r Rotation, gone, stay passphrases) error {
	if len(gone) == 0 {
		return nil
	}
	for _, d := range s.Disks {
		kept, err := d.slotsOf(ctx, stay...)
		if err != nil {
			return err
		}
		doomed, err := d.slotsOf(ctx, gone...)
		if err != nil {
			return err
		}
		for _, id := range doomed {
			if slices.Contains(kept, id) {
				continue
			}
			if err := d.kill(strconv.Itoa(id)); err != nil {
				return err
			}
			r.Log("%s: keyslot %d is gone", d.Path, id)
		}
	}
	return nil
}

// forget is step 5.
func (s *Set) forget() error {
	for _, d := range s.Disks {
		_, id, ok, err := d.pending()
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

// pendingToken names the ciphertexts of a rotation that is under way. Nothing in it
// is authenticated.
type pendingToken struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"` // none
	Version    int      `json:"v"`        // 1
	Ciphertext []byte   `json:"ciphertext"`
	Retires    [][]byte `json:"retires"` // ciphertexts that it replaces
}

func (t pendingToken) all() [][]byte { return append(slices.Clip(t.Retires), t.Ciphertext) }

func (d *Disk) putPending(b keys.Blob, retires [][]byte) error {
	raw, err := json.Marshal(pendingToken{TypePending, []string{}, 1, b.Ciphertext, retires})
	if err != nil {
		return err
	}
	return d.putRaw(TypePending, raw)
}

// pending returns the disk's pending token and its id.
func (d *Disk) pending() (t pendingToken, id int, ok bool, err error) {
	tokens, err := d.Tokens()
	if err != nil {
		return t, 0, false, err
	}
	for _, found := range tokens {
		if found.Type != TypePending {
			continue
		}
		raw, _ := d.header.ReadToken(found.ID)
		if err := json.Unmarshal(raw, &t); ok || err != nil || len(t.Ciphertext) == 0 {
			return t, 0, false, hint.With(fmt.Errorf("token %d of %s is none that a rotation leaves behind", found.ID, d.Path), removal(d, found.ID))
		}
		id, ok = found.ID, true
	}
	return t, id, ok, nil
}

// removal says how to get rid of a pending token.
func removal(d *Disk, id int) string {
	return fmt.Sprintf("if you did not put it there, somebody else did: cryptsetup token remove --token-id %d %s", id, d.Path)
}

// Pending reports whether a rotation was begun and not finished.
func (s *Set) Pending() (bool, error) {
	for _, d := range s.Disks {
		if _, _, ok, err := d.pending(); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
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
