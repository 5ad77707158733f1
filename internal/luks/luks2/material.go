package luks2

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/subtle"
	stdbinary "encoding/binary"
	"hash"

	"golang.org/x/crypto/xts"
)

// Key material is the volume key, split by the anti-forensic splitter (LUKS1
// specification, section 2.4) into 4000 stripes of its own length and encrypted
// by aes-xts-plain64 in 512-byte sectors numbered from 0.

// materialSize is the number of bytes on disk for a volume key of keySize bytes.
// Both are such that sectors come out even: 4000 is a multiple of 16, keySize of 32.
func materialSize(keySize int) int { return keySize * stripes }

// seal splits key and encrypts it into a new buffer.
func seal(key, kek []byte, newHash func() hash.Hash) ([]byte, error) {
	c, err := xts.NewCipher(aes.NewCipher, kek)
	if err != nil {
		return nil, err
	}
	n := len(key)
	b := make([]byte, materialSize(n))
	rand.Read(b[:len(b)-n])
	sum := make([]byte, n)
	defer clear(sum)
	h := newHash()
	for i := 0; i < stripes-1; i++ {
		subtle.XORBytes(sum, sum, b[i*n:(i+1)*n])
		diffuse(sum, h)
	}
	subtle.XORBytes(b[len(b)-n:], sum, key)
	for i := 0; i < len(b); i += sector {
		c.Encrypt(b[i:i+sector], b[i:i+sector], uint64(i/sector))
	}
	return b, nil
}

// unseal reverses seal into key; material stays as it is.
func unseal(key, material, kek []byte, newHash func() hash.Hash) error {
	c, err := xts.NewCipher(aes.NewCipher, kek)
	if err != nil {
		return err
	}
	n := len(key)
	b := make([]byte, materialSize(n))
	defer clear(b)
	for i := 0; i < len(b); i += sector {
		c.Decrypt(b[i:i+sector], material[i:i+sector], uint64(i/sector))
	}
	clear(key)
	h := newHash()
	for i := 0; i < stripes-1; i++ {
		subtle.XORBytes(key, key, b[i*n:(i+1)*n])
		diffuse(key, h)
	}
	subtle.XORBytes(key, key, b[len(b)-n:])
	return nil
}

// diffuse replaces each piece of b, as long as a hash, by the hash of its number
// and itself.
func diffuse(b []byte, h hash.Hash) {
	var number [4]byte
	var sum [64]byte
	for i := 0; len(b) > 0; i++ {
		piece := b[:min(len(b), h.Size())]
		stdbinary.BigEndian.PutUint32(number[:], uint32(i))
		h.Reset()
		h.Write(number[:])
		h.Write(piece)
		copy(piece, h.Sum(sum[:0]))
		b = b[len(piece):]
	}
}
