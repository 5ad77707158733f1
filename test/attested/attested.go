// Package attested makes, for unit tests, what an attested call to KMS is made of: the
// security module's answer to a request, and the envelope with which KMS answers. It
// signs nothing; the simulated EC2 has a KMS that judges.
package attested

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
)

// PublicKey returns the key in a request to the security module, or in a document of
// Document's, as it is encoded.
func PublicKey(b []byte) ([]byte, error) {
	_, rest, ok := bytes.Cut(b, []byte("\x6apublic_key\x59"))
	if !ok || len(rest) < 2 || len(rest) < 2+int(binary.BigEndian.Uint16(rest)) {
		return nil, errors.New("no public key")
	}
	return rest[2 : 2+binary.BigEndian.Uint16(rest)], nil
}

// Document returns a document for the key in a request, without a signature. The PCRs
// are those given.
func Document(request []byte, pcrs map[int][]byte) ([]byte, error) {
	public, err := PublicKey(request)
	if err != nil {
		return nil, err
	}
	payload := []byte("\xa3\x69module_id\x73i-0123456789abcdef0\x6dnitrotpm_pcrs")
	payload = append(payload, 0xa0|byte(len(pcrs)))
	for n, value := range pcrs {
		payload = append(append(payload, byte(n)), text(0x58, value)...)
	}
	payload = append(append(payload, "\x6apublic_key"...), text(0x59, public)...)
	return append(append([]byte("\x84\x44\xa1\x01\x38\x22\xa0"), text(0x59, payload)...), 0x41, 0), nil
}

// text is a byte string whose size is in one byte (0x58) or two (0x59).
func text(head byte, b []byte) []byte {
	if head == 0x58 {
		return append([]byte{head, byte(len(b))}, b...)
	}
	return append(binary.BigEndian.AppendUint16([]byte{head}, uint16(len(b))), b...)
}

// Answer is that of the security module with a document in it, padded as in an NV index.
func Answer(document []byte) []byte {
	b := append([]byte("\xa1\x6bAttestation\xa1\x68document"), text(0x59, document)...)
	return append(b, bytes.Repeat([]byte{0xff}, 8192-len(b))...)
}

// Envelope encrypts a plaintext to a key, as KMS does.
func Envelope(public, plaintext []byte) ([]byte, error) {
	key, err := x509.ParsePKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	to, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a %T", key)
	}
	n := aes.BlockSize - len(plaintext)%aes.BlockSize
	content := make([]byte, 32)
	rand.Read(content)
	return Blocks(to, content, append(bytes.Clone(plaintext), bytes.Repeat([]byte{byte(n)}, n)...))
}

// Blocks encrypts whole blocks, which bring their padding along, with a content key.
func Blocks(to *rsa.PublicKey, content, blocks []byte) ([]byte, error) {
	iv := make([]byte, aes.BlockSize)
	rand.Read(iv)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, content, nil)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return nil, err
	}
	ciphertext := make([]byte, len(blocks))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, blocks)
	oid := func(s string) []byte { return append([]byte{6, byte(len(s))}, s...) }
	const pkcs, nist = "\x2a\x86\x48\x86\xf7\x0d\x01", "\x60\x86\x48\x01\x65\x03\x04"
	version := []byte{2, 1, 2}
	hash := element(0x30, oid(nist+"\x02\x01"))
	return element(0x30, oid(pkcs+"\x07\x03"), element(0xa0, element(0x30, version,
		element(0x31, element(0x30, version, element(0x80, []byte("identifier")),
			element(0x30, oid(pkcs+"\x01\x07"), element(0x30, element(0xa0, hash), element(0xa1, element(0x30, oid(pkcs+"\x01\x08"), hash)))),
			element(0x04, wrapped))),
		element(0x30, oid(pkcs+"\x07\x01"), element(0x30, oid(nist+"\x01\x2a"), element(0x04, iv)), element(0x80, ciphertext))))), nil
}

// element is an element of BER with a definite length in two bytes.
func element(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	return append(binary.BigEndian.AppendUint16([]byte{tag, 0x82}, uint16(len(content))), content...)
}
