package ec2sim

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"time"
)

// This file is KMS for callers with an attestation document.

// recipient of an answer, in requests.
type recipient struct {
	AttestationDocument    []byte
	KeyEncryptionAlgorithm string
}

// recorded are the PCRs that CloudTrail shows of a document.
var recorded = []int{4, 7, 8, 9, 16, 23}

// TrustAttestation has KMS accept documents under a root, a certificate in PEM.
// Without it no document is accepted.
func (c *Cloud) TrustAttestation(root []byte) error {
	block, _ := pem.Decode(root)
	if block == nil {
		return fmt.Errorf("the root of attestation is not in PEM")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("the root of attestation: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attestationRoot = block.Bytes
	return nil
}

// Envelope is what an attested answer was encrypted with.
type Envelope struct {
	Time       time.Time
	ContentKey []byte // of AES-256
	Modulus    []byte // of the recipient's RSA key, big-endian
}

// Envelopes returns those of all answers so far.
func (c *Cloud) Envelopes() []Envelope {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.enveloped)
}

// attested judges the recipient of a request, if it has one. How KMS words its refusals
// is not published.
func (c *Cloud) attested(rq *call, r *recipient) error {
	if r == nil {
		return nil
	}
	if r.KeyEncryptionAlgorithm != "RSAES_OAEP_SHA_256" {
		return refuse("ValidationException", "1 validation error detected: Value '%s' at 'recipient.keyEncryptionAlgorithm' failed to satisfy constraint: Member must satisfy enum value set: [RSAES_OAEP_SHA_256]", r.KeyEncryptionAlgorithm)
	}
	if n := len(r.AttestationDocument); n < 1 || n > 262144 {
		return refuse("ValidationException", "1 validation error detected: Value at 'recipient.attestationDocument' failed to satisfy constraint: Member must have length between 1 and 262144")
	}
	c.mu.Lock()
	root := c.attestationRoot
	c.mu.Unlock()
	d, err := ReadDocument(r.AttestationDocument, root, c.now())
	if err != nil {
		return refuse("ValidationException", "The attestation document is not valid: %v", err)
	}
	public, _ := x509.ParsePKIXPublicKey(d.PublicKey)
	key, ok := public.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < 2048 {
		return refuse("ValidationException", "The public key of the attestation document is not an RSA key of at least 2048 bits")
	}
	rq.document, rq.to = d, key
	shown := map[string]any{"attestationDocumentModuleId": d.ModuleID}
	for _, i := range recorded {
		if value := d.PCRs[i]; value != nil {
			shown[fmt.Sprintf("attestationDocumentNitroTPMPCR%d", i)] = hex.EncodeToString(value)
		}
	}
	rq.additional = map[string]any{"recipient": shown}
	return nil
}

// answerTo puts a plaintext into an answer: as it is, or encrypted to the recipient. KMS
// is known to write the envelope in two forms; this one takes turns.
func (c *Cloud) answerTo(rq *call, out *kmsCiphertext, plaintext []byte) error {
	if rq.to == nil || c.fault("kms-unattested") {
		out.Plaintext = plaintext
		return nil
	}
	to, padding := rq.to, pkcs7
	if c.fault("cms-other-key") {
		other, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return err
		}
		to = &other.PublicKey
	}
	if c.fault("cms-padding") {
		padding = func(n int) []byte { return make([]byte, n) }
	}
	parts := len(c.Envelopes())%2 == 0
	cms, contentKey, err := envelope(to, plaintext, parts, padding)
	if err != nil {
		return err
	}
	now := c.now()
	c.mu.Lock()
	c.enveloped = append(c.enveloped, Envelope{Time: now, ContentKey: contentKey, Modulus: to.N.Bytes()})
	c.mu.Unlock()
	if c.fault("cms-truncated") {
		cms = cms[:len(cms)/2]
	}
	out.CiphertextForRecipient = cms
	if c.fault("kms-plaintext") {
		out.Plaintext = plaintext
	}
	return nil
}
