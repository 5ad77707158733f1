package material

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
)

// Sector is what a Cipher encrypts at a time, in bytes.
const Sector = 512

// Cipher encrypts and decrypts a sector in place.
type Cipher interface {
	Encrypt(dst, src []byte, sector uint64)
	Decrypt(dst, src []byte, sector uint64)
}

// xts is AES in XTS mode (IEEE 1619-2018). That of x/crypto goes byte by byte, which takes
// longer than AES itself, and decrypting 250 KiB of key material is a third of what opening a
// volume computes.
type xts struct {
	data, tweaks cipher.Block
	tweak        [aes.BlockSize]byte // of the sector's first block, for Encrypt of it
}

// XTS returns it for a key of 32 or 64 bytes, of which each half is one of AES.
func XTS(key []byte) (Cipher, error) {
	data, err := aes.NewCipher(key[:len(key)/2])
	if err != nil {
		return nil, err
	}
	tweaks, err := aes.NewCipher(key[len(key)/2:])
	return &xts{data: data, tweaks: tweaks}, err
}

func (x *xts) Encrypt(dst, src []byte, sector uint64) { x.each(dst, src, sector, x.data.Encrypt) }

func (x *xts) Decrypt(dst, src []byte, sector uint64) { x.each(dst, src, sector, x.data.Decrypt) }

// each applies f to the blocks of a sector, each XORed before and after with its tweak:
// the first is the encrypted number of the sector, each next the one before times x in
// GF(2^128).
func (x *xts) each(dst, src []byte, sector uint64, f func(dst, src []byte)) {
	le := binary.LittleEndian
	le.PutUint64(x.tweak[:], sector)
	le.PutUint64(x.tweak[8:], 0)
	x.tweaks.Encrypt(x.tweak[:], x.tweak[:])
	low, high := le.Uint64(x.tweak[:]), le.Uint64(x.tweak[8:])
	for i := 0; i < len(src); i += aes.BlockSize {
		from, to := src[i:i+aes.BlockSize:i+aes.BlockSize], dst[i:i+aes.BlockSize:i+aes.BlockSize]
		le.PutUint64(to, le.Uint64(from)^low)
		le.PutUint64(to[8:], le.Uint64(from[8:])^high)
		f(to, to)
		le.PutUint64(to, le.Uint64(to)^low)
		le.PutUint64(to[8:], le.Uint64(to[8:])^high)
		carry := high >> 63
		low, high = low<<1^carry*0x87, high<<1|low>>63
	}
}

// essiv is AES in CBC mode. The vector of a sector is its number, encrypted under the
// key's SHA-256 (Linux, crypto/essiv.c).
type essiv struct{ data, vectors cipher.Block }

// ESSIV returns it for a key of AES.
func ESSIV(key []byte) (Cipher, error) {
	data, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	salt := sha256.Sum256(key)
	defer clear(salt[:])
	vectors, err := aes.NewCipher(salt[:])
	return essiv{data, vectors}, err
}

func (e essiv) vector(sector uint64) []byte {
	iv := make([]byte, aes.BlockSize)
	binary.LittleEndian.PutUint64(iv, sector)
	e.vectors.Encrypt(iv, iv)
	return iv
}

func (e essiv) Encrypt(dst, src []byte, sector uint64) {
	cipher.NewCBCEncrypter(e.data, e.vector(sector)).CryptBlocks(dst, src)
}

func (e essiv) Decrypt(dst, src []byte, sector uint64) {
	cipher.NewCBCDecrypter(e.data, e.vector(sector)).CryptBlocks(dst, src)
}
