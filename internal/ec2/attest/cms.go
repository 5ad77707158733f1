package attest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"slices"

	"unlock/internal/hint"
	"unlock/internal/secret"
)

// keyBits is the size of the RSA key. KMS takes 2048, 3072 and 4096.
const keyBits = 2048

var (
	errNoKey    = errors.New("there is no key for this boot, or no more")
	errEnvelope = hint.New("what KMS encrypted to this boot is not CMS EnvelopedData with RSAES-OAEP and AES-256-CBC, or breaks off", "something other than KMS answers: check aws.endpoint")
	errOpen     = hint.New("what KMS encrypted does not open with this boot's key", "something other than KMS answers, or it has encrypted to another machine: check aws.endpoint")
)

// A SubjectPublicKeyInfo (RFC 5280) of an RSA key of keyBits with the exponent 65537 is
// the same but for its modulus.
var spkiBegin = []byte{
	0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0, // rsaEncryption, NULL
	0x03, 0x82, 0x01, 0x0f, 0, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0,
}

var spkiEnd = []byte{0x02, 0x03, 0x01, 0x00, 0x01}

func publicKey(k *rsa.PublicKey) []byte {
	b := make([]byte, keyBits/8)
	k.N.FillBytes(b)
	return slices.Concat(spkiBegin, b, spkiEnd)
}

// Object identifiers, as they are encoded.
var (
	oidEnvelopedData = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3}    // 1.2.840.113549.1.7.3
	oidData          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1}    // 1.2.840.113549.1.7.1
	oidOAEP          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7}    // 1.2.840.113549.1.1.7
	oidMGF1          = []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8}    // 1.2.840.113549.1.1.8
	oidSHA256        = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 4, 2, 1}    // 2.16.840.1.101.3.4.2.1
	oidAES256CBC     = []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 4, 1, 0x2a} // 2.16.840.1.101.3.4.1.42
)

// Tags, and the bits in them (X.690, section 8.1.2).
const (
	tagInteger     = 0x02
	tagOctets      = 0x04
	tagNull        = 0x05
	tagOID         = 0x06
	tagSequence    = 0x30
	tagSet         = 0x31
	tagContext     = 0x80
	tagConstructed = 0x20
)

// Envelope is CMS EnvelopedData (RFC 5652, section 6) for one recipient.
type Envelope struct {
	Recipient  []byte // its key's identifier
	Key        []byte // the content key, encrypted with RSAES-OAEP, SHA-256 and MGF1 with it
	IV         []byte // 16 bytes
	Ciphertext []byte // AES-256-CBC, padded; its parts put together
}

// ParseEnvelope reads an envelope in BER. AWS and OpenSSL write it in different forms;
// whatever its lengths, no bytes are left over.
func ParseEnvelope(b []byte) (*Envelope, error) {
	e := new(Envelope)
	r := &ber{b: b}
	r.in(tagSequence, func(r *ber) {
		r.oid(oidEnvelopedData)
		r.in(tagContext|tagConstructed, func(r *ber) {
			r.in(tagSequence, func(r *ber) {
				r.version()
				r.in(tagSet, func(r *ber) { r.in(tagSequence, e.recipient) })
				r.in(tagSequence, e.content)
			})
		})
	})
	if r.bad || len(r.b) > 0 || len(e.IV) != aes.BlockSize || len(e.Ciphertext) == 0 || len(e.Ciphertext)%aes.BlockSize != 0 {
		return nil, errEnvelope
	}
	return e, nil
}

// recipient reads a KeyTransRecipientInfo, and in it RSAES-OAEP-params (RFC 4055,
// section 4.1).
func (e *Envelope) recipient(r *ber) {
	r.version()
	e.Recipient = r.bytes(tagContext)
	r.in(tagSequence, func(r *ber) {
		r.oid(oidOAEP)
		r.in(tagSequence, func(r *ber) {
			r.in(tagContext|tagConstructed|0, hashed)
			r.in(tagContext|tagConstructed|1, func(r *ber) {
				r.in(tagSequence, func(r *ber) {
					r.oid(oidMGF1)
					hashed(r)
				})
			})
		})
	})
	e.Key = r.bytes(tagOctets)
}

// hashed reads SHA-256's AlgorithmIdentifier, whose NULL may be absent.
func hashed(r *ber) {
	r.in(tagSequence, func(r *ber) {
		r.oid(oidSHA256)
		if r.more() && len(r.bytes(tagNull)) > 0 {
			r.bad = true
		}
	})
}

// content reads an EncryptedContentInfo, whose content may be in parts.
func (e *Envelope) content(r *ber) {
	r.oid(oidData)
	r.in(tagSequence, func(r *ber) {
		r.oid(oidAES256CBC)
		e.IV = r.bytes(tagOctets)
	})
	if len(r.b) > 0 && r.b[0] == tagContext {
		e.Ciphertext = r.bytes(tagContext)
		return
	}
	r.in(tagContext|tagConstructed, func(r *ber) {
		for r.more() {
			e.Ciphertext = append(e.Ciphertext, r.bytes(tagOctets)...)
		}
	})
}

// open decrypts. The caller erases what is left behind, and wipes the plaintext.
func (e *Envelope) open(key *rsa.PrivateKey) (*secret.Bytes, error) {
	content, err := rsa.DecryptOAEP(sha256.New(), nil, key, e.Key, nil)
	if err != nil {
		return nil, errOpen
	}
	defer clear(content)
	if len(content) != 32 {
		return nil, errOpen
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return nil, err
	}
	s := secret.New(len(e.Ciphertext))
	cipher.NewCBCDecrypter(block, e.IV).CryptBlocks(s.Bytes(), e.Ciphertext)
	// The padding is as many bytes as it says, in each of them (RFC 5652, section 6.3).
	pad := int(s.Bytes()[s.Len()-1])
	if pad < 1 || pad > aes.BlockSize || bytes.Count(s.Bytes()[s.Len()-pad:], []byte{byte(pad)}) != pad {
		s.Wipe()
		return nil, errOpen
	}
	s.Truncate(s.Len() - pad)
	return s, nil
}

// ber takes elements from b. What is not there is bad, and all that follows.
type ber struct {
	b       []byte
	bad     bool
	endless bool // its end is marked by two zeros
}

// head takes a tag and a length: -1 is the indefinite one.
func (r *ber) head(tag byte) int {
	if r.bad || len(r.b) < 2 || r.b[0] != tag {
		r.bad = true
		return 0
	}
	n := int(r.b[1])
	r.b = r.b[2:]
	if n < 0x80 {
		return n
	}
	size := n & 0x7f
	if size == 0 && tag&tagConstructed != 0 {
		return -1
	}
	if size < 1 || size > 2 || size > len(r.b) { // what is longer is not one of KMS' answers
		r.bad = true
		return 0
	}
	n = 0
	for _, c := range r.b[:size] {
		n = n<<8 | int(c)
	}
	r.b = r.b[size:]
	return n
}

func (r *ber) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// bytes takes a primitive element.
func (r *ber) bytes(tag byte) []byte { return r.take(r.head(tag)) }

// in takes a constructed element, whose contents read takes, to their end.
func (r *ber) in(tag byte, read func(*ber)) {
	n := r.head(tag)
	inner := &ber{b: r.b, bad: r.bad, endless: n < 0}
	if n >= 0 {
		inner.b = r.take(n)
		inner.bad = r.bad
	}
	if !inner.bad {
		read(inner)
	}
	if inner.bad || inner.more() {
		r.bad = true
	}
	if n < 0 {
		r.b = inner.b
		if len(r.take(2)) != 2 {
			r.bad = true
		}
	}
}

// more reports whether the element goes on.
func (r *ber) more() bool {
	if r.endless {
		return !r.bad && !bytes.HasPrefix(r.b, []byte{0, 0})
	}
	return !r.bad && len(r.b) > 0
}

func (r *ber) oid(want []byte) {
	if !bytes.Equal(r.bytes(tagOID), want) {
		r.bad = true
	}
}

// version takes that of structures whose recipient is named by its key's identifier.
func (r *ber) version() {
	if !bytes.Equal(r.bytes(tagInteger), []byte{2}) {
		r.bad = true
	}
}
