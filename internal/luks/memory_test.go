package luks_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"runtime"
	"runtime/debug"
	"testing"

	"unlock/internal/luks"
	"unlock/internal/secret"
	"unlock/test/memory"
)

// TestMemory searches the memory of this process for the passphrase and the volume
// key after both have been wiped. Without GOEXPERIMENT=runtimesecret it only says
// what it finds.
func TestMemory(t *testing.T) {
	// Nothing that becomes garbage is reused, and so overwritten by chance.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	tests := []struct {
		name string
		make func(t *testing.T, f *os.File, passphrase *secret.Bytes)
	}{
		{"LUKS2", func(t *testing.T, f *os.File, passphrase *secret.Bytes) {
			if _, err := luks.Format(f, 24<<20, passphrase, luks.FormatOptions{UUID: testUUID, SectorSize: 4096}); err != nil {
				t.Fatal(err)
			}
		}},
		{"LUKS2 argon2id", func(t *testing.T, f *os.File, passphrase *secret.Bytes) {
			luksFormat(t, f, passphrase, "--pbkdf", "argon2id", "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4")
		}},
		{"LUKS1", func(t *testing.T, f *os.File, passphrase *secret.Bytes) {
			luksFormat(t, f, passphrase, "--type", "luks1", "--pbkdf-force-iterations", "1000")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := image(t, 24<<20)
			passphrase := secret.New(24)
			defer passphrase.Wipe()
			rand.Read(passphrase.Bytes())
			maskedPassphrase := masked(passphrase.Bytes())
			tt.make(t, f, passphrase)
			h, err := luks.Read(f, 24<<20, luks.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			p, err := h.Open(t.Context(), passphrase)
			if err != nil {
				t.Fatal(err)
			}
			maskedKey := masked(p.Key.Bytes())
			if copies(t, maskedKey) == 0 || copies(t, maskedPassphrase) == 0 {
				t.Error("secrets are not found where they must be: the search is broken")
			}
			p.Wipe()
			passphrase.Wipe()
			runtime.GC()
			runtime.GC()
			key, pass := copies(t, maskedKey), copies(t, maskedPassphrase)
			t.Logf("left: %d copies of the volume key, %d of the passphrase", key, pass)
			if erased && key+pass > 0 {
				t.Error("want none")
			}
		})
	}
}

// luksFormat has cryptsetup format f without the passphrase passing through this
// process's heap.
func luksFormat(t *testing.T, f *os.File, passphrase *secret.Bytes, args ...string) {
	t.Helper()
	key, err := os.Create(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	defer key.Close()
	if _, err := key.Write(passphrase.Bytes()); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, "", append(append([]string{"luksFormat", "-q"}, args...), f.Name(), key.Name())...)
}

// masked returns b in a form that a search for b does not find.
func masked(b []byte) []byte {
	m := make([]byte, len(b))
	for i := range b {
		m[i] = b[i] ^ 0xa5
	}
	return m
}

// copies counts how often the first 16 bytes of what is masked lie in the writable
// memory of this process.
func copies(t *testing.T, mask []byte) int {
	t.Helper()
	mask = mask[:16]
	n := 0
	memory.Pieces(t, make([]byte, 1<<20), len(mask), func(piece []byte) {
		for i := range piece {
			piece[i] ^= 0xa5
		}
		n += bytes.Count(piece, mask)
	})
	return n
}
