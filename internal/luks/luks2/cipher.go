package luks2

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	stdbinary "encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/xts"

	"unlock/internal/hint"
)

// A cipherSpec is a way to encrypt sectors of 512 bytes, by the name that LUKS and the
// kernel have for it: that of volumes, which the kernel encrypts, and of key
// material, which is encrypted here.
type cipherSpec struct {
	name     string
	keySizes []int // bytes
	sectors  func(key []byte) (sectorCipher, error)
}

// sectorCipher encrypts and decrypts a sector in place.
type sectorCipher interface {
	Encrypt(dst, src []byte, sector uint64)
	Decrypt(dst, src []byte, sector uint64)
}

// ciphers are those that are opened; new volumes have the first. Key material takes
// fewer than 2^32 sectors, where aes-xts-plain, which counts them in 32 bits, and
// aes-xts-plain64 are the same.
var ciphers = [...]cipherSpec{
	{cipherName, []int{32, 64}, newXTS},
	{"aes-xts-plain", []int{32, 64}, newXTS},
	{"aes-cbc-essiv:sha256", []int{16, 32}, newESSIV},
}

// Ciphers are the names of all ciphers that Read accepts.
func Ciphers() []string {
	var names []string
	for _, c := range ciphers {
		names = append(names, c.name)
	}
	return names
}

// findCipher returns the cipher of that name, nil if it is not supported.
func findCipher(name string) *cipherSpec {
	for i := range ciphers {
		if ciphers[i].name == name {
			return &ciphers[i]
		}
	}
	return nil
}

// takes returns an error unless a key of size bytes is one for c.
func (c *cipherSpec) takes(size int) error {
	if slices.Contains(c.keySizes, size) {
		return nil
	}
	return fmt.Errorf("of %d bytes, not %d or %d", size, c.keySizes[0], c.keySizes[1])
}

// otherCiphers says that a name is none of ours.
func otherCiphers(name string) string {
	names := Ciphers()
	return fmt.Sprintf("%.40q is not %s or %s", name, strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}

// cipherAdvice is for volumes in other ciphers.
func cipherAdvice(name string) string {
	return fmt.Sprintf("this volume's cipher %.40q is not opened by unlock; cryptsetup opens it", name)
}

// CheckCipher returns an error, with advice, unless the cipher of that name is supported.
func CheckCipher(name string) error {
	if findCipher(name) != nil {
		return nil
	}
	return hint.With(fmt.Errorf("encryption %s", otherCiphers(name)), cipherAdvice(name))
}

func newXTS(key []byte) (sectorCipher, error) { return xts.NewCipher(aes.NewCipher, key) }

// essiv is AES in CBC mode. The vector of a sector is its number, encrypted under the
// key's SHA-256 (Linux, crypto/essiv.c).
type essiv struct{ data, vectors cipher.Block }

func newESSIV(key []byte) (sectorCipher, error) {
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
	stdbinary.LittleEndian.PutUint64(iv, sector)
	e.vectors.Encrypt(iv, iv)
	return iv
}

func (e essiv) Encrypt(dst, src []byte, sector uint64) {
	cipher.NewCBCEncrypter(e.data, e.vector(sector)).CryptBlocks(dst, src)
}

func (e essiv) Decrypt(dst, src []byte, sector uint64) {
	cipher.NewCBCDecrypter(e.data, e.vector(sector)).CryptBlocks(dst, src)
}
