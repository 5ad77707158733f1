package luks2

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"hash"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/ripemd160"
)

// hashes by cryptsetup's names for them. Left out are those of which there is no
// implementation that somebody looks after: whirlpool, sm3, streebog.
var hashes = map[string]func() hash.Hash{
	"sha1":        sha1.New,
	"sha224":      sha256.New224,
	"sha256":      sha256.New,
	"sha384":      sha512.New384,
	"sha512":      sha512.New,
	"sha3-224":    func() hash.Hash { return sha3.New224() },
	"sha3-256":    func() hash.Hash { return sha3.New256() },
	"sha3-384":    func() hash.Hash { return sha3.New384() },
	"sha3-512":    func() hash.Hash { return sha3.New512() },
	"blake2b-160": blake2(blake2b.New, 20),
	"blake2b-256": blake2(blake2b.New, 32),
	"blake2b-384": blake2(blake2b.New, 48),
	"blake2b-512": blake2(blake2b.New, 64),
	"blake2s-256": blake2(func(_ int, key []byte) (hash.Hash, error) { return blake2s.New256(key) }, 32),
	"ripemd160":   ripemd160.New,
}

// blake2 is a constructor without a key, for which there is no error.
func blake2(f func(size int, key []byte) (hash.Hash, error), size int) func() hash.Hash {
	return func() hash.Hash {
		h, err := f(size, nil)
		if err != nil {
			panic("luks2: " + err.Error())
		}
		return h
	}
}

// newHash returns nil for hashes that are not supported.
func newHash(name string) func() hash.Hash { return hashes[name] }

// KnownHash reports whether a hash is supported.
func KnownHash(name string) bool { return hashes[name] != nil }
