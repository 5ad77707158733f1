package nitrotpm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Authority signs attestation documents as AWS does: a root, and authorities of a
// Region, a zone and an instance.
type Authority struct {
	chain []*x509.Certificate // the root's first
	key   *ecdsa.PrivateKey   // of the last
}

// validity of the certificates below the root, as on EC2.
var levels = []struct {
	name     string
	validity time.Duration
}{
	{"aws.nitro-enclaves", 30 * 365 * 24 * time.Hour},
	{"simulated.us-east-1.aws.nitro-enclaves", 481 * time.Hour},
	{"simulated.zonal.us-east-1.aws.nitro-enclaves", 139 * time.Hour},
	{"i-0123456789abcdef0.us-east-1.aws.nitro-enclaves", 24 * time.Hour},
}

// NewAuthority makes the certificates that documents are signed under.
func NewAuthority() (*Authority, error) {
	a := &Authority{}
	for _, l := range levels {
		if err := a.add(l.name, l.validity, true, time.Now()); err != nil {
			return nil, fmt.Errorf("making the authority of attestation: %w", err)
		}
	}
	return a, nil
}

// add makes a certificate below the last one.
func (a *Authority) add(name string, validity time.Duration, ca bool, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return err
	}
	subject := pkix.Name{Country: []string{"US"}, Organization: []string{"Amazon"}, OrganizationalUnit: []string{"AWS"}, CommonName: name}
	template := &x509.Certificate{SerialNumber: serial, Subject: subject, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(validity),
		BasicConstraintsValid: true, IsCA: ca, KeyUsage: x509.KeyUsageDigitalSignature}
	if ca {
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	parent, signer := template, key
	if len(a.chain) > 0 {
		parent, signer = a.chain[len(a.chain)-1], a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	a.chain, a.key = append(a.chain, certificate), key
	return nil
}

// Root returns the root's certificate in PEM.
func (a *Authority) Root() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.chain[0].Raw})
}

// Content is what a document says. What is nil is left out as null.
type Content struct {
	ModuleID  string
	Time      time.Time
	PCRs      map[int][]byte // of 48 bytes
	PublicKey []byte
	UserData  []byte
	Nonce     []byte
}

// Document signs a document with a certificate of its own, valid for 3 hours from the
// time it gives.
func (a *Authority) Document(c Content) ([]byte, error) {
	leaf := &Authority{chain: a.chain[:len(a.chain):len(a.chain)], key: a.key}
	if err := leaf.add(c.ModuleID+".us-east-1.aws", 3*time.Hour, false, c.Time); err != nil {
		return nil, fmt.Errorf("signing a document: %w", err)
	}
	var bundle [][]byte
	for _, ca := range a.chain {
		bundle = append(bundle, ca.Raw)
	}
	// A map of indefinite length with members in this order is what a real document has.
	payload := []byte{0xbf}
	for _, m := range []struct {
		name  string
		value any
	}{
		{"module_id", c.ModuleID}, {"digest", "SHA384"}, {"timestamp", c.Time.UnixMilli()}, {"nitrotpm_pcrs", c.PCRs},
		{"certificate", leaf.chain[len(leaf.chain)-1].Raw}, {"cabundle", bundle}, {"public_key", c.PublicKey}, {"user_data", c.UserData}, {"nonce", c.Nonce},
	} {
		name, err1 := cbor.Marshal(m.name)
		value, err2 := canonical.Marshal(m.value)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("signing a document: %w, %w", err1, err2)
		}
		payload = append(append(payload, name...), value...)
	}
	payload = append(payload, 0xff)
	return sign1(leaf.key, payload)
}

// canonical sorts the PCRs.
var canonical, _ = cbor.CanonicalEncOptions().EncMode()

// sign1 is COSE_Sign1 with ES384, without its tag (RFC 9052, section 4.2).
func sign1(key *ecdsa.PrivateKey, payload []byte) ([]byte, error) {
	protected, err1 := cbor.Marshal(map[int]int{1: -35})
	signed, err2 := cbor.Marshal([]any{"Signature1", protected, []byte{}, payload})
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("signing a document: %w, %w", err1, err2)
	}
	digest := sha512.Sum384(signed)
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("signing a document: %w", err)
	}
	signature := make([]byte, 96)
	r.FillBytes(signature[:48])
	s.FillBytes(signature[48:])
	return cbor.Marshal([]any{protected, map[int]int{}, payload, signature})
}
