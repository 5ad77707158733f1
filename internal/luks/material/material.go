package luks2

import (
	"crypto/rand"
	"crypto/subtle"
	stdbinary "encoding/binary"
	"hash"
)

// Key material is the volume key, split by the anti-forensic splitter (LUKS1
// specification, section 2.4) into 4000 stripes of its own length and encrypted
// in 512-byte sectors numbered from 0.

// materialSize is the number of bytes on disk for a volume key of keySize bytes.
// Both are such that sectors come out even: 4000 is a multiple of 32, keySize of 16.
func materialSize(keySize int) int { return keySize * stripes }

// seal splits key and encrypts it into a new buffer. Call it within secret.Do.
func seal(key, kek []byte, newHash func() hash.Hash) ([]byte, error) {
	c, err := newXTS(kek)
	if err != nil {
		return nil, err
	}
	n := len(key)
	b := make([]byte, materialSize(n))
	rand.Read(b[:len(b)-n])
	sum := merge(b[:len(b)-n], n, newHash())
	subtle.XORBytes(b[len(b)-n:], sum, key)
	clear(sum)
	for i := 0; i < len(b); i += sector {
		c.Encrypt(b[i:i+sector], b[i:i+sector], uint64(i/sector))
	}
	return b, nil
}

// unseal reverses seal into key; material stays as it is. Call it within secret.Do.
func unseal(key, material, kek []byte, spec *cipherSpec, newHash func() hash.Hash) error {
	c, err := spec.sectors(kek)
	if err != nil {
		return err
	}
	n := len(key)
	b := make([]byte, materialSize(n))
	defer clear(b)
	for i := 0; i < len(b); i += sector {
		c.Decrypt(b[i:i+sector], material[i:i+sector], uint64(i/sector))
	}
	sum := merge(b[:len(b)-n], n, newHash())
	subtle.XORBytes(key, sum, b[len(b)-n:])
	clear(sum)
	return nil
}

// merge XORs the stripes of n bytes one by one, and after each replaces the sum's
// pieces, each as long as a hash, by the hash of their number and themselves.
func merge(stripes []byte, n int, h hash.Hash) []byte {
	sum, number, out := make([]byte, n), make([]byte, 4), make([]byte, 0, h.Size())
	for ; len(stripes) > 0; stripes = stripes[n:] {
		subtle.XORBytes(sum, sum, stripes)
		for i, rest := uint32(0), sum; len(rest) > 0; i++ {
			piece := rest[:min(len(rest), h.Size())]
			stdbinary.BigEndian.PutUint32(number, i)
			h.Reset()
			h.Write(number)
			h.Write(piece)
			copy(piece, h.Sum(out))
			rest = rest[len(piece):]
		}
	}
	clear(out[:cap(out)])
	return sum
}
