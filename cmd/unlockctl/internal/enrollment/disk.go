// Package enrollment changes which keys open a LUKS2 volume: it adds, replaces and
// removes keyslots together with the tokens that say whose they are. It knows sets
// of disks that share a data key, and it is interrupted safely: after each single
// write some published key opens every disk, and running the same change again
// finishes it.
//
// Making and decrypting ciphertexts is for its callers; nothing here talks to AWS.
package enrollment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"unlock/internal/aws/arn"
	"unlock/internal/hint"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

// Token types. TypeRecovery is systemd's.
const (
	TypeKMS      = "aws-kms"
	TypeRecovery = "systemd-recovery"
	TypeSealed   = "unlock-sealed" // says where the keyslot's passphrase is sealed
	TypePending  = "unlock-rotate" // the new key of a rotation that is under way
)

// maxTokens is LUKS2's limit.
const maxTokens = 32

// Disk is a LUKS2 volume whose keys are to be changed.
type Disk struct {
	Path   string
	Size   int64 // bytes
	dev    luks.Device
	header *luks.Header
	close  func() error
}

// Open opens a disk or a file that holds a LUKS2 volume. With dry all changes are
// made to a copy in memory, and the disk is opened for reading only.
func Open(path string, dry bool) (*Disk, error) {
	mode := os.O_RDWR
	if dry {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("finding the size of %s: %w", path, err)
	}
	var dev luks.Device = f
	if dry {
		dev = newOverlay(f)
	}
	d, err := New(path, dev, size)
	if err != nil {
		f.Close()
		return nil, err
	}
	d.close = f.Close
	return d, nil
}

// New returns the disk on a Device of size bytes.
func New(path string, dev luks.Device, size int64) (*Disk, error) {
	h, err := luks.Read(dev, size, luks.Limits{})
	if errors.Is(err, luks.ErrNotLUKS) {
		return nil, hint.With(fmt.Errorf("reading LUKS header of %s: %w", path, err),
			"is it the right one? cryptsetup luksFormat makes a volume; a boot makes one of a blank disk where format is set")
	}
	if err != nil {
		return nil, fmt.Errorf("reading LUKS header of %s: %w", path, err)
	}
	if h.Version() != 2 {
		return nil, fmt.Errorf("%s is a LUKS1 volume, whose header has no place for tokens: convert it with cryptsetup convert --type luks2", path)
	}
	return &Disk{Path: path, Size: size, dev: dev, header: h, close: func() error { return nil }}, nil
}

// Close closes the disk.
func (d *Disk) Close() error { return d.close() }

// Header of the disk, as last read or written.
func (d *Disk) Header() *luks.Header { return d.header }

// Token is a token of any type.
type Token struct {
	ID       int      `json:"-"`
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
}

// Tokens lists the tokens by id.
func (d *Disk) Tokens() ([]Token, error) {
	var list []Token
	for id := range maxTokens {
		raw, ok := d.header.ReadToken(id)
		if !ok {
			continue
		}
		t := Token{}
		if err := json.Unmarshal(raw, &t); err != nil {
			return nil, fmt.Errorf("token %d of %s: %w", id, d.Path, err)
		}
		t.ID = id
		list = append(list, t)
	}
	return list, nil
}

// kmsToken is a KMSToken with its type, as it stands in the header.
type kmsToken struct {
	Type string `json:"type"`
	luks.KMSToken
}

// put writes a token with a ciphertext: it replaces the one of its type.
func (d *Disk) put(typ string, b keys.Blob, slots []string) error {
	t := kmsToken{typ, luks.KMSToken{Keyslots: slots, Version: 1, Ciphertext: b.Ciphertext, Key: b.KeyARN, Context: b.Context, Region: arn.Region(b.KeyARN)}}
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return d.putRaw(typ, raw)
}

func (d *Disk) putRaw(typ string, raw json.RawMessage) error {
	id := -1
	tokens, err := d.Tokens()
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Type == typ {
			id = t.ID
		}
	}
	if _, err := d.header.PutToken(d.dev, id, raw); err != nil {
		return fmt.Errorf("writing token %s to %s: %w", typ, d.Path, err)
	}
	return nil
}

// SealedToken says where a keyslot's passphrase is sealed. Nothing relies on it.
type SealedToken struct {
	Type     string            `json:"type"`
	Keyslots []string          `json:"keyslots"`
	Version  int               `json:"v"` // 1
	Source   string            `json:"source"`
	Key      string            `json:"key"`
	Context  map[string]string `json:"context,omitempty"`
}

// putSealed writes a token, in place of the one with the same source.
func (d *Disk) putSealed(t SealedToken) error {
	t.Type, t.Version = TypeSealed, 1
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	id, _, err := d.sealed(t.Source)
	if err != nil {
		return err
	}
	if _, err := d.header.PutToken(d.dev, id, raw); err != nil {
		return fmt.Errorf("writing token %s to %s: %w", TypeSealed, d.Path, err)
	}
	return nil
}

// sealed returns the token for a source and its id, -1 if there is none.
func (d *Disk) sealed(source string) (int, SealedToken, error) {
	tokens, err := d.Tokens()
	if err != nil {
		return -1, SealedToken{}, err
	}
	for _, found := range tokens {
		var t SealedToken
		raw, _ := d.header.ReadToken(found.ID)
		if found.Type == TypeSealed && json.Unmarshal(raw, &t) == nil && t.Source == source {
			return found.ID, t, nil
		}
	}
	return -1, SealedToken{}, nil
}

// opens reports whether the passphrase opens the disk.
func (d *Disk) opens(ctx context.Context, passphrase *secret.Bytes) (bool, error) {
	p, err := d.header.Open(ctx, passphrase)
	if errors.Is(err, luks.ErrPassphrase) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening %s: %w", d.Path, err)
	}
	p.Wipe()
	return true, nil
}

// slotsOf returns the keyslots that any of the passphrases opens.
func (d *Disk) slotsOf(ctx context.Context, all ...*secret.Bytes) ([]int, error) {
	var found []int
	for _, passphrase := range all {
		ids, err := d.header.KeyslotsOf(ctx, passphrase)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", d.Path, err)
		}
		for _, id := range ids {
			if !slices.Contains(found, id) {
				found = append(found, id)
			}
		}
	}
	return found, nil
}

// without returns a copy in memory that lacks some keyslots.
func (d *Disk) without(gone func(id int) bool) (*Disk, error) {
	copied, err := New(d.Path, newOverlay(d.dev), d.Size)
	if err != nil {
		return nil, err
	}
	for _, id := range d.header.Keyslots() {
		if gone(id) {
			if err := copied.header.KillKeyslot(copied.dev, id); err != nil {
				return nil, err
			}
		}
	}
	return copied, nil
}

// add adds a keyslot and proves that it opens the disk.
func (d *Disk) add(ctx context.Context, existing, added *secret.Bytes, slow bool) (string, error) {
	id, err := d.header.AddKeyslot(ctx, d.dev, existing, added, slow)
	if err != nil {
		return "", fmt.Errorf("adding a keyslot to %s: %w", d.Path, err)
	}
	ok, err := d.opens(ctx, added)
	if err == nil && !ok {
		err = fmt.Errorf("the new keyslot %d of %s does not open it", id, d.Path)
	}
	return strconv.Itoa(id), err
}

func (d *Disk) kill(slot string) error {
	id, err := strconv.Atoi(slot)
	if err != nil {
		return err
	}
	if err := d.header.KillKeyslot(d.dev, id); err != nil {
		return fmt.Errorf("removing keyslot %d of %s: %w", id, d.Path, err)
	}
	return nil
}
