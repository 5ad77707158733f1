package boot

import (
	"context"
	"encoding/hex"
	"errors"
	"strconv"
	"time"

	"unlock/internal/ec2/attest"
	"unlock/internal/ec2/tpm"
	"unlock/internal/status"
)

// attestation is the TPM and to whom KMS encrypts, where keys are attested. The TPM is
// opened once, and no later than the process is confined. What it has refused for good it
// is not asked again, until another process tries again.
type attestation struct {
	recipient *attest.Recipient
	opened    chan struct{} // closed when tpm or err is set
	tpm       *tpm.TPM
	err       error         // of opening the TPM, or what it has refused
	done      chan struct{} // closed when the first document is there, or is not
	cancel    context.CancelFunc
}

// attest opens the TPM, and fetches a document while the network and the disks are
// awaited. A failure is left for the call to meet again.
func (c *cloud) attest(ctx context.Context) {
	a := &attestation{opened: make(chan struct{}), done: make(chan struct{})}
	ctx, a.cancel = context.WithCancel(ctx)
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if end, ok := ctx.Deadline(); ok { // a TPM that stays busy leaves time to say so
		waiting, cancel = context.WithDeadline(ctx, end.Add(-time.Until(end)/4))
	}
	a.recipient = attest.New(func(ctx context.Context, request []byte) ([]byte, error) {
		if <-a.opened; a.err != nil {
			return nil, a.err
		}
		answer, err := a.tpm.Request(ctx, request)
		if tpm.Refused(err) {
			a.err = err // whoever asks is alone here: the recipient sees to that
		}
		return answer, err
	})
	c.attestation = a
	go func() {
		defer close(a.opened)
		if a.err = errors.New("this program has no TPM"); c.TPM != nil {
			a.tpm, a.err = c.TPM(waiting)
		}
	}()
	go func() {
		defer close(a.done)
		defer cancel()
		_ = c.rec.Step("attestation", "", func() error { // the key is made meanwhile
			_, err := a.recipient.Document(waiting)
			<-a.opened
			return err
		})
	}()
}

// close ends what is under way and forgets the key. A nil attestation has nothing.
func (a *attestation) close() {
	if a == nil {
		return
	}
	a.cancel()
	<-a.done
	a.recipient.Close()
	if a.tpm != nil {
		_ = a.tpm.Close()
	}
}

// recipient is to whom KMS encrypts; nil: no key is attested.
func (c *cloud) recipient() *attest.Recipient {
	if c.attestation == nil {
		return nil
	}
	return c.attestation.recipient
}

// awaitTPM returns when the TPM is open, or cannot be opened.
func (a *attestation) awaitTPM() {
	if a != nil {
		<-a.opened
	}
}

// measured is what the status says of the newest document.
func (a *attestation) measured() *status.Attestation {
	if a == nil {
		return nil
	}
	d := a.recipient.Measured()
	if d == nil {
		return nil
	}
	s := &status.Attestation{Module: d.Module, PCRs: map[string]string{}}
	for n, value := range d.PCRs {
		s.PCRs[strconv.Itoa(n)] = hex.EncodeToString(value)
	}
	return s
}
