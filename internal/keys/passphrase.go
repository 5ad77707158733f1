package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"os"

	"unlock/internal/aws"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
)

// MaxCiphertext is the largest ciphertext that KMS takes, in bytes.
const MaxCiphertext = 6144

// shortest is the number of bytes below which what is left of a plaintext that
// goes on after a newline is taken for an accident.
const shortest = 8

// Random returns a passphrase of 256 random bits, as the text that a data key
// becomes too. The caller wipes it.
func Random() *secret.Bytes {
	raw := secret.New(32)
	defer raw.Wipe()
	rand.Read(raw.Bytes()) // never fails
	return Text(raw)
}

// Text returns the passphrase that a data key stands for: its base64 text. The
// caller wipes it.
func Text(key *secret.Bytes) *secret.Bytes {
	text := secret.New(base64.StdEncoding.EncodedLen(key.Len()))
	base64.StdEncoding.Encode(text.Bytes(), key.Bytes())
	return text
}

// longPassphrase is the length in bytes from which a passphrase counts as random,
// or as good as that.
const longPassphrase = 32

// Guessable reports whether a passphrase is so short that somebody may have made it
// up: it needs the slow key derivation that protects what people think of.
func Guessable(passphrase *secret.Bytes) bool { return passphrase.Len() < longPassphrase }

// FirstLine shortens a plaintext to the passphrase that cryptsetup would read from
// standard input: up to the first newline, which is not part of it (the blog's
// recipe pipes it so, and cryptsetup without --key-file stops there). Its usual
// work is to drop the newline that an editor or echo left at the end. A random
// binary key may have a newline anywhere; one that leaves next to nothing is
// refused, for a volume formatted with it would be open to guessing. log reports
// what is left out.
func FirstLine(plaintext *secret.Bytes, s source.Source, log func(format string, args ...any)) error {
	size := plaintext.Len()
	if i := bytes.IndexByte(plaintext.Bytes(), '\n'); i >= 0 {
		plaintext.Truncate(i)
	}
	left := plaintext.Len()
	switch {
	case left == 0:
		return &aws.Error{Op: "reading the passphrase in " + s.String(), Err: fmt.Errorf("it is empty"),
			Hint: "encrypt a passphrase that does not begin with a newline"}
	case left+1 < size && left < shortest:
		return &aws.Error{Op: "reading the passphrase in " + s.String(),
			Err:  fmt.Errorf("its first newline leaves %d bytes of %d", left, size),
			Hint: "encrypt a passphrase without newlines, such as the output of: openssl rand -base64 32"}
	case left+1 < size:
		log("the passphrase in %s goes on after a newline: as cryptsetup does, only the %d bytes before it are used", s, left)
	}
	return nil
}

// checkSize refuses a ciphertext that KMS would not take.
func checkSize(n int) error {
	if n == 0 {
		return fmt.Errorf("the ciphertext is empty")
	}
	if n > MaxCiphertext {
		return fmt.Errorf("the ciphertext is longer than the %d bytes that KMS takes", MaxCiphertext)
	}
	return nil
}

// readFile returns the ciphertext in a file of the image.
func readFile(path string) ([]byte, error) {
	data, err := func() ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, MaxCiphertext+1))
		if err != nil {
			return nil, err
		}
		return data, checkSize(len(data))
	}()
	if err != nil {
		return nil, &aws.Error{Op: "reading the ciphertext file:" + path, Err: err,
			Hint: "put the raw output of aws kms encrypt (CiphertextBlob, base64-decoded) there and rebuild the initramfs"}
	}
	return data, nil
}
