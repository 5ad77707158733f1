package tpm

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"

	"unlock/internal/hint"
)

// Command codes (part 2, section 6.5.2).
const (
	ccPCRRead   = 0x17e
	ccPCRExtend = 0x182
)

// Bank is a hash algorithm of which a TPM may have PCRs, by its number (TCG, Algorithm
// Registry).
type Bank uint16

// SHA384 is the bank that NitroTPM attests.
const SHA384 Bank = 0x000c

// banks are those that are extended.
var banks = []struct {
	Bank
	name string
	hash func() hash.Hash
}{
	{0x0004, "sha1", sha1.New},
	{algSHA256, "sha256", sha256.New},
	{SHA384, "sha384", sha512.New384},
	{0x000d, "sha512", sha512.New},
}

// Digest is what a PCR was extended with in a bank.
type Digest struct {
	Bank string // "sha384"
	Sum  []byte
}

// pcrs is the size in bytes of a selection of PCRs.
const selectSize = 3

// Extend extends a PCR, in all banks that the TPM has, with the hash of event. The bank
// that NitroTPM attests must be among them.
func (t *TPM) Extend(ctx context.Context, pcr int, event string) ([]Digest, error) {
	const capPCRs = 5
	r, err := t.capability(ctx, capPCRs, 0, 1)
	if err != nil {
		return nil, err
	}
	var digests []Digest
	attested := false
	params := []byte{0, 0, 0, 0}
	for n := r.uint32(); n > 0 && !r.bad; n-- {
		bank, selected := Bank(r.uint16()), []byte(nil)
		if size := r.bytes(1); size != nil {
			selected = r.bytes(int(size[0]))
		}
		for _, known := range banks {
			if known.Bank != bank || pcr/8 >= len(selected) || selected[pcr/8]>>(pcr%8)&1 == 0 {
				continue
			}
			h := known.hash()
			h.Write([]byte(event))
			d := Digest{known.name, h.Sum(nil)}
			digests, attested = append(digests, d), attested || bank == SHA384
			params = append(order.AppendUint16(params, uint16(bank)), d.Sum...)
		}
	}
	if r.bad || !attested {
		return nil, hint.With(errors.New("the TPM has no PCRs of SHA-384"), brokenHint)
	}
	order.PutUint32(params, uint32(len(digests)))
	_, err = t.do(ctx, command{"PCR_Extend", ccPCRExtend, []uint32{uint32(pcr)}, true, params})
	if err != nil {
		return nil, err
	}
	return digests, nil
}

// PCR returns the value of a PCR in a bank; none if the TPM does not have it.
func (t *TPM) PCR(ctx context.Context, bank Bank, pcr int) ([]byte, error) {
	selection := make([]byte, selectSize)
	selection[pcr/8] = 1 << (pcr % 8)
	params := append(order.AppendUint16([]byte{0, 0, 0, 1}, uint16(bank)), selectSize)
	c := command{name: "PCR_Read", code: ccPCRRead, params: append(params, selection...)}
	r, err := t.do(ctx, c)
	if err != nil {
		return nil, err
	}
	r.uint32() // how often PCRs were changed
	for n := r.uint32(); n > 0 && !r.bad; n-- {
		r.uint16()
		if size := r.bytes(1); size != nil {
			r.bytes(int(size[0]))
		}
	}
	if n := r.uint32(); n == 0 && !r.bad {
		return nil, nil
	}
	value := r.sized()
	if r.bad {
		return nil, malformed(c)
	}
	return value, nil
}
