package keys

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"unlock/internal/aws"
	"unlock/internal/ec2/attest"
	"unlock/internal/hint"
)

// attested returns to whom KMS is to encrypt, with a document that is fresh.
func (c *Client) attested(ctx context.Context) (*recipient, error) {
	if c.o.Attest == nil {
		return nil, errors.New("there is nothing here that could attest the call")
	}
	document, err := c.o.Attest.Document(ctx)
	if err != nil {
		return nil, err
	}
	return &recipient{document, "RSAES_OAEP_SHA_256"}, nil
}

// open takes the plaintext out of the answer to an attested call.
func (c *Client) open(r *aws.Request, out *kmsOutput) error {
	switch {
	case out.Plaintext.Len() > 0:
		return &aws.Fault{Code: "(unattested)", Err: errors.New("the plaintext is in the clear")}
	case len(out.CiphertextForRecipient) == 0:
		return &aws.Fault{Code: "(unattested)", Err: errors.New("nothing is encrypted to this boot")}
	}
	s, err := c.o.Attest.Open(out.CiphertextForRecipient)
	if err != nil {
		r.Words = append(r.Words, "{envelope}", hint.Of(err))
		return &aws.Fault{Code: "(envelope)", Err: err}
	}
	out.Plaintext.Bytes = s
	return nil
}

// document is what was measured of this boot; nil: it is not known.
func (c *Client) document() *attest.Document {
	if c.o.Attest == nil {
		return nil
	}
	return c.o.Attest.Measured()
}

// pcr4 is this boot's, "" if it is not known.
func (c *Client) pcr4() string {
	d := c.document()
	if d == nil {
		return ""
	}
	return hex.EncodeToString(d.PCRs[4])
}

// then adds to KMS' refusal of an attested call which PCR 4 a boot had that was given the
// key. Which ones the key policy has now nobody says here.
func then(err error, pcr4 string) error {
	var answer *aws.Refusal
	if pcr4 == "" || !errors.As(err, &answer) || answer.Code != denied {
		return err
	}
	return hint.With(err, hint.Of(err)+"; PCR 4 of the boot that formatted the volume was "+pcr4)
}

// measured says what a key policy is held against: the PCRs that it should have, and the
// image they are of.
func (c *Client) measured() string {
	d := c.document()
	if d == nil {
		return ""
	}
	image := ""
	if c.o.Image != nil {
		image = c.o.Image()
	}
	if image != "" {
		image = " of image " + image
	}
	text := fmt.Sprintf("%s: PCR 4 %x, PCR 7 %x, PCR 12 %x, PCR 13 %x, PCR 2 %x", image, d.PCRs[4], d.PCRs[7], d.PCRs[12], d.PCRs[13], d.PCRs[2])
	if d.Closed() {
		text += " (PCR 13 is extended, as it is before a shell and after unlock: reboot)"
	}
	return text
}
