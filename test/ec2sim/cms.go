package ec2sim

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"slices"
)

// This file writes CiphertextForRecipient: CMS EnvelopedData (RFC 5652) in the layout
// that KMS answers with: the outer four SEQUENCEs have indefinite length, the content
// is one of two forms. The layout is that of the vectors which AWS publishes with its
// enclaves SDK for C.

// The identifiers of the layout, with their tags.
var (
	oidEnveloped = []byte{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3}
	oidData      = []byte{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1}
	oidOAEP      = []byte{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7}
	oidMGF1      = []byte{0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8}
	oidSHA256    = []byte{0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1}
	oidAES256CBC = []byte{0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 0x2a}
	asnNull      = []byte{0x05, 0}
	version2     = []byte{0x02, 1, 2}
	endOfContent = []byte{0, 0}
)

// tlv is an element of definite length.
func tlv(tag byte, parts ...[]byte) []byte {
	content := slices.Concat(parts...)
	n := len(content)
	head := []byte{tag}
	switch {
	case n < 0x80:
		head = append(head, byte(n))
	case n < 0x100:
		head = append(head, 0x81, byte(n))
	default:
		head = append(head, 0x82, byte(n>>8), byte(n))
	}
	return append(head, content...)
}

// indefinite is an element of indefinite length.
func indefinite(tag byte, parts ...[]byte) []byte {
	return slices.Concat([]byte{tag, 0x80}, slices.Concat(parts...), endOfContent)
}

// envelope encrypts a plaintext to a key. In parts, its content is constructed of
// OCTET STRINGs, otherwise it is primitive. padding is PKCS #7's.
func envelope(to *rsa.PublicKey, plaintext []byte, parts bool, padding func(n int) []byte) (cms, contentKey []byte, err error) {
	contentKey = make([]byte, 32)
	iv := make([]byte, aes.BlockSize)
	rand.Read(contentKey)
	rand.Read(iv)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, contentKey, nil)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, nil, err
	}
	content := append(slices.Clone(plaintext), padding(aes.BlockSize-len(plaintext)%aes.BlockSize)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(content, content)
	encrypted := tlv(0x80, content)
	if parts {
		// The vector has one part; the standard allows several.
		cut := len(content) / 2
		encrypted = indefinite(0xa0, tlv(0x04, content))
		if cut > aes.BlockSize {
			encrypted = indefinite(0xa0, tlv(0x04, content[:cut]), tlv(0x04, content[cut:]))
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(to)
	if err != nil {
		return nil, nil, err
	}
	id := sha256.Sum256(spki)
	hash := tlv(0x30, oidSHA256, asnNull)
	oaep := tlv(0x30, oidOAEP, tlv(0x30, tlv(0xa0, hash), tlv(0xa1, tlv(0x30, oidMGF1, hash))))
	recipient := tlv(0x30, version2, tlv(0x80, id[:]), oaep, tlv(0x04, wrapped))
	cms = indefinite(0x30, oidEnveloped, indefinite(0xa0,
		indefinite(0x30, version2, tlv(0x31, recipient),
			indefinite(0x30, oidData, tlv(0x30, oidAES256CBC, tlv(0x04, iv)), encrypted))))
	return cms, contentKey, nil
}

// pkcs7 is n bytes of padding.
func pkcs7(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n) }
