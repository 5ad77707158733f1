package ec2sim

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// This file judges attestation documents of NitroTPM as KMS does (EC2 User Guide,
// "NitroTPM Attestation Document contents" and "Validating a NitroTPM Attestation
// Document"; RFC 9052 for COSE_Sign1).

// maxDocumentAge is how old KMS lets a document be. AWS does not publish it.
const maxDocumentAge = 5 * time.Minute

// Document is the payload of an attestation document.
type Document struct {
	ModuleID    string         `cbor:"module_id"`
	Digest      string         `cbor:"digest"`    // of the PCRs: "SHA384"
	Timestamp   uint64         `cbor:"timestamp"` // ms since 1970
	PCRs        map[int][]byte `cbor:"nitrotpm_pcrs"`
	Certificate []byte         `cbor:"certificate"`
	CABundle    [][]byte       `cbor:"cabundle"` // the root's first
	PublicKey   []byte         `cbor:"public_key"`
	UserData    []byte         `cbor:"user_data"`
	Nonce       []byte         `cbor:"nonce"`
}

// strict is CBOR as attestation documents have it: without tags, no key twice. Their map
// has indefinite length.
var strict, _ = cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, TagsMd: cbor.TagsForbidden}.DecMode()

// ReadDocument returns the payload of a document that is signed by a chain from a
// root, a certificate in DER, and not older than five minutes.
func ReadDocument(document, root []byte, now time.Time) (*Document, error) {
	var sign struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected map[any]any
		Payload     []byte
		Signature   []byte
	}
	if err := strict.Unmarshal(document, &sign); err != nil {
		return nil, fmt.Errorf("it is no COSE_Sign1: %w", err)
	}
	var header map[int]int
	const algorithm, es384 = 1, -35
	if err := strict.Unmarshal(sign.Protected, &header); err != nil || len(header) != 1 || header[algorithm] != es384 || len(sign.Unprotected) != 0 {
		return nil, errors.New("it is not signed with ES384")
	}
	d := &Document{}
	if err := strict.Unmarshal(sign.Payload, d); err != nil {
		return nil, fmt.Errorf("its payload: %w", err)
	}
	if err := d.complete(); err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return nil, fmt.Errorf("its certificate: %w", err)
	}
	signed, err := cbor.Marshal([]any{"Signature1", sign.Protected, []byte{}, sign.Payload})
	if err != nil {
		return nil, err
	}
	if !es384Signature(leaf, signed, sign.Signature) {
		return nil, errors.New("its signature is not that of its certificate")
	}
	if err := d.trusted(leaf, root, now); err != nil {
		return nil, err
	}
	if age := now.Sub(d.Time()); age > maxDocumentAge || age < -maxDocumentAge {
		return nil, fmt.Errorf("it was made %v ago", age.Round(time.Second))
	}
	return d, nil
}

// Time is when the document was made.
func (d *Document) Time() time.Time { return time.UnixMilli(int64(d.Timestamp)) }

// complete holds the document against the ranges that AWS documents.
func (d *Document) complete() error {
	switch {
	case d.ModuleID == "" || d.Timestamp == 0 || len(d.CABundle) == 0:
		return errors.New("a field is missing")
	case d.Digest != "SHA384":
		return fmt.Errorf("its digest is %q", d.Digest)
	case len(d.PCRs) < 1 || len(d.PCRs) > 32:
		return fmt.Errorf("it has %d PCRs", len(d.PCRs))
	case len(d.PublicKey) > 1024 || len(d.UserData) > 1024 || len(d.Nonce) > 1024:
		return errors.New("a field has more than 1024 bytes")
	}
	for i, value := range d.PCRs {
		if i < 0 || i > 31 || len(value) != sha512.Size384 {
			return fmt.Errorf("PCR %d has %d bytes", i, len(value))
		}
	}
	return nil
}

// es384Signature reports whether a signature is the certificate's: r and s, 48 bytes each.
func es384Signature(leaf *x509.Certificate, signed, signature []byte) bool {
	key, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() || len(signature) != 96 {
		return false
	}
	digest := sha512.Sum384(signed)
	return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:48]), new(big.Int).SetBytes(signature[48:]))
}

// trusted checks the chain from the root.
func (d *Document) trusted(leaf *x509.Certificate, root []byte, now time.Time) error {
	if !bytes.Equal(d.CABundle[0], root) {
		return errors.New("its root is another")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for i, der := range d.CABundle {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("certificate %d of its bundle: %w", i, err)
		}
		pool := between
		if i == 0 {
			pool = roots
		}
		pool.AddCert(ca)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return fmt.Errorf("its chain: %w", err)
	}
	return nil
}
