package luks2

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"unlock/internal/secret"
)

// Deriver derives the keys of keyslots from one passphrase, each combination of
// parameters and salt once. The volumes of a set are formatted with the same
// Deriver and so the same salt: a set of 24 disks then costs one Argon2, not 24.
// That takes nothing from an attacker's work: whoever finds the passphrase of one
// disk has that of all, and the key material under the common key is random.
//
// It may be used by several goroutines at once.
type Deriver struct {
	passphrase *secret.Bytes // the caller's
	salt       []byte        // of the keyslots that Format makes

	mu      sync.Mutex
	derived map[string]func() (*secret.Bytes, error)
}

// NewDeriver returns a Deriver, which the caller wipes. The passphrase stays the
// caller's and must outlive it.
func NewDeriver(passphrase *secret.Bytes) *Deriver {
	return &Deriver{passphrase: passphrase, salt: newSalt(), derived: map[string]func() (*secret.Bytes, error){}}
}

// Passphrase that it was made from.
func (d *Deriver) Passphrase() *secret.Bytes { return d.passphrase }

// derive returns a key of size bytes, which stays the Deriver's. Whoever asks
// first computes it with its ctx; the others wait.
func (d *Deriver) derive(ctx context.Context, k kdf, size int) (*secret.Bytes, error) {
	id := fmt.Sprint(k, size)
	d.mu.Lock()
	once := d.derived[id]
	if once == nil {
		once = sync.OnceValues(func() (*secret.Bytes, error) {
			key := secret.New(size)
			if err := k.derive(ctx, d.passphrase, key.Bytes()); err != nil {
				key.Wipe()
				return nil, err
			}
			return key, nil
		})
		d.derived[id] = once
	}
	d.mu.Unlock()
	return once()
}

// Wipe overwrites the derived keys; nobody may be deriving any more. Nil is fine.
func (d *Deriver) Wipe() {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, once := range d.derived {
		key, _ := once()
		key.Wipe()
	}
	clear(d.derived)
}

func newSalt() []byte {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	return salt
}
