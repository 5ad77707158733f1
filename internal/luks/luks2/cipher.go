package luks2

import (
	"fmt"
	"slices"
	"strings"

	"unlock/internal/hint"
	"unlock/internal/luks/material"
)

// A cipherSpec is a way to encrypt sectors of 512 bytes, by the name that LUKS and the
// kernel have for it: that of volumes, which the kernel encrypts, and of key
// material, which is encrypted here.
type cipherSpec struct {
	name     string
	keySizes []int // bytes
	sectors  func(key []byte) (material.Cipher, error)
}

// ciphers are those that are opened; new volumes have the first. Key material takes
// fewer than 2^32 sectors, where aes-xts-plain, which counts them in 32 bits, and
// aes-xts-plain64 are the same.
var ciphers = [...]cipherSpec{
	{cipherName, []int{32, 64}, material.XTS},
	{"aes-xts-plain", []int{32, 64}, material.XTS},
	{"aes-cbc-essiv:sha256", []int{16, 32}, material.ESSIV},
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
