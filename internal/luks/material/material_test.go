package material_test

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"testing"

	"golang.org/x/crypto/xts"

	"unlock/internal/luks/material"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// TestXTS has x/crypto as the judge.
func TestXTS(t *testing.T) {
	t.Parallel()
	for _, size := range []int{32, 64} {
		for _, sector := range []uint64{0, 1, 503, 1<<32 - 1, 1<<63 + 5} {
			t.Run(fmt.Sprintf("key of %d bytes, sector %d", size, sector), func(t *testing.T) {
				key, plain := random(size), random(material.Sector)
				judge, err := xts.NewCipher(aes.NewCipher, key)
				if err != nil {
					t.Fatal(err)
				}
				c, err := material.XTS(key)
				if err != nil {
					t.Fatal(err)
				}
				got, want := make([]byte, len(plain)), make([]byte, len(plain))
				c.Encrypt(got, plain, sector)
				judge.Encrypt(want, plain, sector)
				if !bytes.Equal(got, want) {
					t.Errorf("Encrypt = %x, want %x", got, want)
				}
				if c.Decrypt(got, got, sector); !bytes.Equal(got, plain) {
					t.Errorf("Decrypt = %x, want %x", got, plain)
				}
			})
		}
	}
}

// TestUnseal takes keys and hashes of all sizes that headers may name; cryptsetup is the
// judge in packages luks and luks2.
func TestUnseal(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 32, 64} {
		for name, newHash := range map[string]func() hash.Hash{"sha224": sha256.New224, "sha256": sha256.New, "sha512": sha512.New} {
			t.Run(fmt.Sprintf("%d bytes, %s", size, name), func(t *testing.T) {
				key, kek := random(size), random(64)
				sealed, err := material.Seal(key, kek, newHash)
				if err != nil || len(sealed) != material.Size(size) {
					t.Fatalf("Seal = %d bytes, %v", len(sealed), err)
				}
				before := bytes.Clone(sealed)
				got := make([]byte, size)
				if err := material.Unseal(got, sealed, kek, material.XTS, newHash); err != nil || !bytes.Equal(got, key) {
					t.Errorf("Unseal = %x, %v, want %x", got, err, key)
				}
				if !bytes.Equal(sealed, before) {
					t.Error("Unseal changed the key material")
				}
			})
		}
	}
}
