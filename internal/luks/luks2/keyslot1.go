package luks2

import (
	"context"
	"fmt"

	"unlock/internal/secret"
)

// Keyslots1 are the keyslots of a LUKS1 header, which work as those of LUKS2 do, but
// that one hash and one cipher serve for everything.
type Keyslots1 struct {
	Cipher           string
	Hash             string
	KeySize          int // bytes, of the volume's key and of those that encrypt key material
	Digest           [convertedDigest]byte
	DigestSalt       [saltSize]byte
	DigestIterations uint32
	Slots            []Keyslot1
}

// Keyslot1 is one of them.
type Keyslot1 struct {
	ID         int
	Salt       [saltSize]byte
	Iterations uint32
	Material   []byte // KeySize*4000 bytes, encrypted
}

// Check returns an error, with advice where it is only not supported, unless cipher,
// key size and hash are supported and the digest can be computed.
func (k *Keyslots1) Check(lim Limits) error {
	if err := CheckCipher(k.Cipher); err != nil {
		return err
	}
	if err := findCipher(k.Cipher).takes(k.KeySize); err != nil {
		return fmt.Errorf("key %w", err)
	}
	if err := k.pbkdf2(k.DigestSalt[:], k.DigestIterations).check(lim); err != nil {
		return fmt.Errorf("digest with %w", err)
	}
	return nil
}

// Open tries the passphrase on the keyslots, whose parameters Check has passed, and
// returns the volume key, which the caller wipes. ErrPassphrase: none opens.
func (k *Keyslots1) Open(ctx context.Context, d *Deriver) (*secret.Bytes, error) {
	h := &Header{materials: map[int][]byte{}}
	h.meta.digest = digest{kdf: k.pbkdf2(k.DigestSalt[:], k.DigestIterations), want: k.Digest[:]}
	for _, s := range k.Slots {
		h.materials[s.ID] = s.Material
		h.meta.keyslots = append(h.meta.keyslots, keyslot{id: s.ID, priority: priorityNormal, keySize: k.KeySize, bound: true,
			kdf: k.pbkdf2(s.Salt[:], s.Iterations), afHash: k.Hash, cipher: findCipher(k.Cipher), areaKey: k.KeySize})
	}
	return h.open(ctx, d)
}

func (k *Keyslots1) pbkdf2(salt []byte, iterations uint32) kdf {
	return kdf{name: "pbkdf2", hash: k.Hash, salt: salt, iterations: iterations}
}
