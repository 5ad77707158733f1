// Package attest has KMS encrypt its answers to this boot: a Recipient is a key pair that
// lives no longer than the boot, and a document of NitroTPM's with its public half and the
// machine's PCRs, which KMS holds against the key policy. What KMS answers is CMS
// EnvelopedData, which the private half opens.
//
// CBOR (RFC 8949), COSE (RFC 9052) and CMS (RFC 5652) are read as far as AWS uses them,
// and what is otherwise is refused. The document is not judged here: KMS does that. How it
// is had from the TPM is for others to know.
//
// Plaintexts go from the envelope straight into locked memory. The private key and the
// content key are made where the runtime erases them (secret.Do): the former once Close
// was called and the garbage collector has come by.
package attest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"sync"
	"time"

	"unlock/internal/hint"
	"unlock/internal/secret"
)

// fresh is how old a document may be when it is sent. KMS takes older ones, but for how
// long AWS does not say.
const fresh = time.Minute

// Recipient is to whom KMS encrypts. Safe for concurrent use.
type Recipient struct {
	exchange func(ctx context.Context, request []byte) ([]byte, error)

	turn chan struct{} // to fetch: there is one TPM

	mu       sync.Mutex
	key      *rsa.PrivateKey // made when it is first wanted
	document []byte
	fetched  time.Time
	closed   bool
}

// New returns a Recipient that gets documents by exchange, which sends a request to the
// security module and returns its answer.
func New(exchange func(ctx context.Context, request []byte) ([]byte, error)) *Recipient {
	return &Recipient{exchange: exchange, turn: make(chan struct{}, 1)}
}

// Document returns a document that is not older than a minute.
func (r *Recipient) Document(ctx context.Context) ([]byte, error) {
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return nil, hint.With(fmt.Errorf("waiting for NitroTPM: %w", context.Cause(ctx)), "the TPM does not answer: reboot the instance")
	}
	r.mu.Lock()
	key, document, age := r.key, r.document, time.Since(r.fetched)
	r.mu.Unlock()
	if document != nil && age < fresh {
		return document, nil
	}
	if key == nil {
		var err error
		if key, err = r.private(); err != nil {
			return nil, err
		}
	}
	answer, err := r.exchange(ctx, Request(publicKey(&key.PublicKey)))
	if err != nil {
		return nil, fmt.Errorf("asking NitroTPM for an attestation document: %w", err)
	}
	if document, err = Answer(answer); err != nil {
		return nil, hint.With(fmt.Errorf("asking NitroTPM for an attestation document: %w", err), "reboot the instance; if it says so again, take another one and report this to AWS")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.document, r.fetched = document, time.Now()
	return document, nil
}

// private makes the private key.
func (r *Recipient) private() (key *rsa.PrivateKey, err error) {
	secret.Do(func() { key, err = rsa.GenerateKey(rand.Reader, keyBits) })
	if err != nil {
		return nil, fmt.Errorf("making an RSA key: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errNoKey
	}
	r.key = key
	return key, nil
}

// Measured describes the newest document; nil if there is none, or it cannot be read.
func (r *Recipient) Measured() *Document {
	r.mu.Lock()
	document := r.document
	r.mu.Unlock()
	d, err := Parse(document)
	if err != nil {
		return nil
	}
	return d
}

// Open returns what was encrypted to the recipient. The caller wipes it.
func (r *Recipient) Open(envelope []byte) (plaintext *secret.Bytes, err error) {
	e, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	key := r.key
	r.mu.Unlock()
	if key == nil {
		return nil, errNoKey
	}
	secret.Do(func() { plaintext, err = e.open(key) })
	return plaintext, err
}

// Close forgets the private key.
func (r *Recipient) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.key, r.closed = nil, true
}
