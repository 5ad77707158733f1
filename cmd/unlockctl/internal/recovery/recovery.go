// Package recovery makes and checks recovery keys: passphrases for paper, in the
// form of systemd-cryptenroll --recovery-key. 256 random bits are written as 64
// characters of modhex, an alphabet whose keys lie in the same place on most
// keyboards, in eight groups: slips of the finger show before any key derivation is
// tried, and systemd-cryptsetup takes them too.
package recovery

import (
	"crypto/rand"
	"errors"
	"fmt"

	"unlock/internal/secret"
)

// alphabet is modhex: the digit of value i is alphabet[i].
const alphabet = "cbdefghijklnrtuv"

const (
	keySize = 32 // bytes of randomness
	group   = 8  // characters between dashes
	digits  = 2 * keySize
	// Size of a key in characters, with its dashes.
	Size = digits + digits/group - 1
)

// New returns a new recovery key. The caller wipes it.
func New() *secret.Bytes {
	raw := secret.New(keySize)
	defer raw.Wipe()
	rand.Read(raw.Bytes()) // never fails
	key := secret.New(Size)
	out := key.Bytes()
	at := 0
	for i, b := range raw.Bytes() {
		if i > 0 && i%(group/2) == 0 {
			out[at] = '-'
			at++
		}
		out[at], out[at+1] = alphabet[b>>4], alphabet[b&15]
		at += 2
	}
	return key
}

// Errors of Parse.
var (
	// ErrNoKey: this was not meant to be a recovery key.
	ErrNoKey = errors.New("not a recovery key")
	// ErrMistyped: it was, but for a few characters.
	ErrMistyped = errors.New("mistyped recovery key")
)

// Parse returns what was typed in the form in which it opens a volume: dashes and
// blanks may be missing or added, capitals count as small letters. ErrMistyped: it
// has the length of a recovery key, or nearly, but not the characters. The caller
// wipes the result.
func Parse(typed *secret.Bytes) (*secret.Bytes, error) {
	key := secret.New(Size)
	out, n, wrong := key.Bytes(), 0, 0
	for i, c := range typed.Bytes() {
		if c == '-' || c == ' ' || c == '\n' || c == '\r' || c == '\t' {
			continue
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if value(c) < 0 && wrong == 0 {
			wrong = i + 1
		}
		if n < digits {
			out[n+n/group] = c
		}
		n++
	}
	for i := group; i < Size; i += group + 1 {
		out[i] = '-'
	}
	switch {
	case n < digits-group || n > digits+group:
		key.Wipe()
		return nil, ErrNoKey
	case n != digits:
		key.Wipe()
		return nil, fmt.Errorf("%w: %d letters instead of %d", ErrMistyped, n, digits)
	case wrong > 0:
		key.Wipe()
		return nil, fmt.Errorf("%w: character %d is none of %s", ErrMistyped, wrong, alphabet)
	}
	return key, nil
}

// value of a digit, or -1.
func value(c byte) int {
	for i := range len(alphabet) {
		if alphabet[i] == c {
			return i
		}
	}
	return -1
}
