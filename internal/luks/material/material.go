// Package material makes and opens the key material of keyslots: the volume key, split
// by the anti-forensic splitter (LUKS1 specification, section 2.4) into 4000 stripes of
// its own length and encrypted in 512-byte sectors numbered from 0.
//
// It is what opening a volume computes, but for the key derivation, and is compiled for
// that (see UNLOCK_INLINE in the Makefile). AES and SHA-256 are the standard library's, which
// takes the processor's instructions for them on amd64 and arm64 where there are any: profiles
// name aes.decryptBlockAsm and sha256.blockSHANI. Headers are package luks2's.
package material

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"hash"
)

// Stripes of a volume key.
const Stripes = 4000

// Size is the number of bytes on disk for a volume key of keySize bytes.
// Both are such that sectors come out even: 4000 is a multiple of 32, keySize of 16.
func Size(keySize int) int { return keySize * Stripes }

// Seal splits key and encrypts it into a new buffer. Call it within secret.Do.
func Seal(key, kek []byte, newHash func() hash.Hash) ([]byte, error) {
	c, err := XTS(kek)
	if err != nil {
		return nil, err
	}
	n := len(key)
	b := make([]byte, Size(n))
	rand.Read(b[:len(b)-n])
	m := newMerger(n, newHash())
	m.add(b[:len(b)-n])
	subtle.XORBytes(b[len(b)-n:], m.sum, key)
	m.wipe()
	for i := 0; i < len(b); i += Sector {
		c.Encrypt(b[i:i+Sector], b[i:i+Sector], uint64(i/Sector))
	}
	return b, nil
}

// Unseal reverses Seal into key; material stays as it is. Call it within secret.Do.
func Unseal(key, material, kek []byte, newCipher func(key []byte) (Cipher, error), newHash func() hash.Hash) error {
	c, err := newCipher(kek)
	if err != nil {
		return err
	}
	n := len(key)
	b := make([]byte, together*n)
	defer clear(b)
	m := newMerger(n, newHash())
	defer m.wipe()
	for number := uint64(0); len(material) > 0; material = material[len(b):] {
		for i := 0; i < len(b); i += Sector {
			c.Decrypt(b[i:i+Sector], material[i:i+Sector], number)
			number++
		}
		if len(material) == len(b) { // the last stripe is what the sum of the others hides the key in
			m.add(b[:len(b)-n])
			subtle.XORBytes(key, m.sum, b[len(b)-n:])
		} else {
			m.add(b)
		}
	}
	return nil
}

// together is how many stripes are decrypted at a time: for a key of any size they are
// whole sectors, and they stay in the processor's nearest cache.
const together = 32

// merger XORs stripes one by one, and after each replaces the sum's pieces, each as long
// as a hash, by the hash of their number and themselves.
type merger struct {
	sum   []byte // as long as a stripe
	h     hash.Hash
	piece []byte // a number and a piece
	out   []byte
}

// newMerger returns one for stripes of n bytes, which is to be wiped.
func newMerger(n int, h hash.Hash) *merger {
	return &merger{make([]byte, n), h, make([]byte, 4+h.Size()), make([]byte, 0, h.Size())}
}

func (m *merger) add(stripes []byte) {
	n := len(m.sum)
	for ; len(stripes) > 0; stripes = stripes[n:] {
		subtle.XORBytes(m.sum, m.sum, stripes[:n])
		for i, rest := uint32(0), m.sum; len(rest) > 0; i++ {
			binary.BigEndian.PutUint32(m.piece, i)
			k := copy(m.piece[4:], rest)
			m.h.Reset()
			m.h.Write(m.piece[:4+k])
			m.out = m.h.Sum(m.out[:0])
			copy(rest[:k], m.out)
			rest = rest[k:]
		}
	}
}

func (m *merger) wipe() {
	clear(m.sum)
	clear(m.piece)
	clear(m.out[:cap(m.out)])
}
