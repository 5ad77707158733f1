package keys

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"unlock/internal/config"
	"unlock/internal/secret"
)

// maxCiphertext is the largest ciphertext that KMS takes, in bytes.
const maxCiphertext = 6144

// shortest is the number of bytes below which what is left of a plaintext that
// goes on after a newline is taken for an accident.
const shortest = 8

// stdin shortens a plaintext to the passphrase that cryptsetup would read from
// standard input: up to the first newline, which is not part of it (the blog's
// recipe pipes it so, and cryptsetup without --key-file stops there). Its usual
// work is to drop the newline that an editor or echo left at the end. A random
// binary key may have a newline anywhere; one that leaves next to nothing is
// refused, for a volume formatted with it would be open to guessing.
func (c *Client) stdin(plaintext *secret.Bytes, k config.Key) error {
	size := plaintext.Len()
	if i := bytes.IndexByte(plaintext.Bytes(), '\n'); i >= 0 {
		plaintext.Truncate(i)
	}
	left := plaintext.Len()
	switch {
	case left == 0:
		return &Error{Op: "reading the passphrase in " + string(k.Source), Err: fmt.Errorf("it is empty"),
			Hint: "encrypt a passphrase that does not begin with a newline"}
	case left+1 < size && left < shortest:
		return &Error{Op: "reading the passphrase in " + string(k.Source),
			Err:  fmt.Errorf("its first newline leaves %d bytes of %d", left, size),
			Hint: "encrypt a passphrase without newlines, such as the output of: openssl rand -base64 32"}
	case left+1 < size:
		c.o.Log("the passphrase in %s goes on after a newline: as cryptsetup does, only the %d bytes before it are used", k.Source, left)
	}
	return nil
}

// checkSize refuses a ciphertext that KMS would not take.
func checkSize(n int) error {
	if n == 0 {
		return fmt.Errorf("the ciphertext is empty")
	}
	if n > maxCiphertext {
		return fmt.Errorf("the ciphertext is longer than the %d bytes that KMS takes", maxCiphertext)
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
		data, err := io.ReadAll(io.LimitReader(f, maxCiphertext+1))
		if err != nil {
			return nil, err
		}
		return data, checkSize(len(data))
	}()
	if err != nil {
		return nil, &Error{Op: "reading the ciphertext file:" + path, Err: err,
			Hint: "put the raw output of aws kms encrypt (CiphertextBlob, base64-decoded) there and rebuild the initramfs"}
	}
	return data, nil
}
