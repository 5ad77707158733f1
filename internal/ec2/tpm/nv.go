package tpm

import (
	"context"
	"fmt"
	"strings"

	"unlock/internal/hint"
)

// Command codes (part 2, section 6.5.2), and AWS' own.
const (
	ccNVUndefineSpace = 0x122
	ccNVDefineSpace   = 0x12a
	ccNVWrite         = 0x137
	ccNVRead          = 0x14e
	ccNVReadPublic    = 0x169
	ccGetCapability   = 0x17a
	ccNSMRequest      = 0x20000001
)

// The NV index through which requests and answers go: one, so that what a crash leaves
// is found again, in the range that is the owner's (TCG, Registry of Reserved TPM 2.0
// Handles and Localities).
const (
	index           = 0x0180756c
	indexSize       = 8192 // bytes; what AWS' tool takes
	indexAttributes = nvAuthWrite | nvAuthRead
)

// Attributes of NV indices (part 2, section 13.4), and an algorithm.
const (
	nvAuthWrite = 1 << 2
	nvAuthRead  = 1 << 18
	nvWritten   = 1 << 29
	algSHA256   = 0x000b
)

// A chunk is at most what every TPM takes at a time, if it doesn't say more, and leaves
// room for the rest of a response.
const (
	leastChunk = 512
	mostChunk  = 2048
)

const (
	foreignHint = "it is another program's: see tpm2_nvreadpublic, and undefine it if nobody needs it"
	vendorHint  = "this instance type's TPM does not attest: take a type with NitroTPM attestation"
	spaceHint   = "undefine indices that nobody needs, such as those of 8192 bytes that attestation tools leave: tpm2_nvundefine INDEX"
)

// Request has NitroTPM's security module answer a request, which is CBOR, as is the
// answer; padding follows it. Errors that it knows of are explained (package hint).
func (t *TPM) Request(ctx context.Context, request []byte) (answer []byte, err error) {
	if len(request) > indexSize {
		return nil, fmt.Errorf("a request of %d bytes", len(request))
	}
	chunk, err := t.chunk(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.define(ctx); err != nil {
		return nil, err
	}
	defer func() {
		// Also when there is no time left: the space would be lost to others.
		if uerr := t.undefine(context.WithoutCancel(ctx)); err == nil {
			err = uerr
		}
	}()
	both := []uint32{index, index} // what authorizes it, and what it is about
	for at := 0; at < len(request); at += chunk {
		piece := request[at:min(at+chunk, len(request))]
		params := order.AppendUint16(append(order.AppendUint16(nil, uint16(len(piece))), piece...), uint16(at))
		if _, err := t.do(ctx, command{"NV_Write", ccNVWrite, both, true, params}); err != nil {
			return nil, err
		}
	}
	_, err = t.do(ctx, command{"VENDOR_AWS_NSM_REQUEST", ccNSMRequest, both, true, nil})
	if is(err, rcCommandCode) {
		err = hint.With(err, vendorHint)
	}
	if err != nil {
		return nil, err
	}
	for len(answer) < indexSize {
		n := min(chunk, indexSize-len(answer))
		c := command{"NV_Read", ccNVRead, both, true, order.AppendUint16(order.AppendUint16(nil, uint16(n)), uint16(len(answer)))}
		r, err := t.do(ctx, c)
		if err != nil {
			return nil, err
		}
		piece := r.sized()
		if len(piece) != n {
			return nil, malformed(c)
		}
		answer = append(answer, piece...)
	}
	return answer, nil
}

// chunk is how many bytes of an index are read and written at a time.
func (t *TPM) chunk(ctx context.Context) (int, error) {
	const properties, nvBufferMax = 6, 0x12c
	r, err := t.capability(ctx, properties, nvBufferMax, 1)
	if err != nil {
		return 0, err
	}
	if n, property, size := r.uint32(), r.uint32(), r.uint32(); n == 1 && property == nvBufferMax && size > 0 {
		return int(min(size, mostChunk)), nil
	}
	return leastChunk, nil
}

// capability asks for at most n of the values of a kind, from first on, and returns the
// list.
func (t *TPM) capability(ctx context.Context, kind, first, n uint32) (*reader, error) {
	params := order.AppendUint32(order.AppendUint32(order.AppendUint32(nil, kind), first), n)
	c := command{name: "GetCapability", code: ccGetCapability, params: params}
	r, err := t.do(ctx, c)
	if err != nil {
		return nil, err
	}
	r.bytes(1) // whether there is more
	if r.uint32() != kind || r.bad {
		return nil, malformed(c)
	}
	return r, nil
}

// define makes the index. One that a crash has left is replaced.
func (t *TPM) define(ctx context.Context) error {
	public := order.AppendUint16(order.AppendUint32(nil, index), algSHA256)
	public = order.AppendUint16(order.AppendUint32(public, indexAttributes), 0) // no policy
	public = order.AppendUint16(public, indexSize)
	params := append(order.AppendUint16(order.AppendUint16(nil, 0), uint16(len(public))), public...) // no password
	c := command{"NV_DefineSpace", ccNVDefineSpace, []uint32{rhOwner}, true, params}
	_, err := t.do(ctx, c)
	if is(err, rcNVDefined) {
		ours, perr := t.ours(ctx)
		switch {
		case perr != nil:
			return perr
		case !ours:
			return hint.With(fmt.Errorf("NV index %#x of the TPM is taken: %w", index, err), foreignHint)
		}
		if err := t.undefine(ctx); err != nil {
			return err
		}
		_, err = t.do(ctx, c)
	}
	if is(err, rcNVSpace) {
		return hint.With(fmt.Errorf("the TPM has no space for an NV index of %d bytes, with %s: %w", indexSize, t.indices(ctx), err), spaceHint)
	}
	return err
}

func (t *TPM) undefine(ctx context.Context) error {
	_, err := t.do(ctx, command{"NV_UndefineSpace", ccNVUndefineSpace, []uint32{rhOwner, index}, true, nil})
	return err
}

// ours reports whether the index is one that we have made.
func (t *TPM) ours(ctx context.Context) (bool, error) {
	i, err := t.public(ctx, index)
	return i.algorithm == algSHA256 && i.attributes&^nvWritten == indexAttributes && len(i.policy) == 0 && i.size == indexSize, err
}

// nvIndex is what is public of an index.
type nvIndex struct {
	algorithm  uint16
	attributes uint32
	policy     []byte
	size       uint16
}

func (t *TPM) public(ctx context.Context, handle uint32) (i nvIndex, err error) {
	c := command{name: "NV_ReadPublic", code: ccNVReadPublic, handles: []uint32{handle}}
	r, err := t.do(ctx, c)
	if err != nil {
		return i, err
	}
	r = r.sub(int(r.uint16()))
	same := r.uint32() == handle
	i = nvIndex{r.uint16(), r.uint32(), r.sized(), r.uint16()}
	if !same || r.bad {
		return nvIndex{}, malformed(c)
	}
	return i, nil
}

// Index is an NV index of any program's.
type Index struct {
	Handle uint32
	Size   int // bytes
}

// Left reports whether it is as attestation tools make theirs. After a boot there is none,
// so that somebody's crash has left it.
func (i Index) Left() bool { return i.Size == indexSize }

// Indices returns the NV indices, at most 64.
func (t *TPM) Indices(ctx context.Context) ([]Index, error) {
	const handles, first, most = 1, 0x01000000, 64
	r, err := t.capability(ctx, handles, first, most)
	if err != nil {
		return nil, err
	}
	var all []Index
	for n := r.uint32(); n > 0 && len(r.b) > 0; n-- {
		handle := r.uint32()
		if i, err := t.public(ctx, handle); err == nil {
			all = append(all, Index{handle, int(i.size)})
		}
	}
	return all, nil
}

// indices names all indices, for a message.
func (t *TPM) indices(ctx context.Context) string {
	all, err := t.Indices(ctx)
	if err != nil {
		return err.Error()
	}
	if len(all) == 0 {
		return "no indices"
	}
	var names []string
	for _, i := range all {
		names = append(names, fmt.Sprintf("%#x (%d bytes)", i.Handle, i.Size))
	}
	return strings.Join(names, ", ")
}
