package attest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Major types (RFC 8949, section 3.1).
const (
	cborUint  = 0
	cborNint  = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7
)

const cborNull = 0xf6

// Request is what the security module is asked for: a document with a public key in it.
func Request(public []byte) []byte {
	b := appendText([]byte{cborMap<<5 | 1}, "Attestation")
	b = append(b, cborMap<<5|3)
	b = append(appendText(b, "user_data"), cborNull)
	b = append(appendText(b, "nonce"), cborNull)
	b = append(appendText(b, "public_key"), cborBytes<<5|25)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(public))), public...)
}

// appendText appends a text of fewer than 24 bytes.
func appendText(b []byte, s string) []byte {
	return append(append(b, cborText<<5|byte(len(s))), s...)
}

// Answer returns the document in an answer of the security module, which may be padded.
func Answer(answer []byte) ([]byte, error) {
	r := &cbor{b: answer}
	var document []byte
	var refusal string
	r.fields(func(name string) {
		switch name {
		case "Attestation":
			r.fields(func(name string) {
				if name == "document" {
					document = r.bytes()
					return
				}
				r.skip(depth)
			})
		case "Error":
			refusal = r.text()
		default:
			r.skip(depth)
		}
	})
	switch {
	case r.bad:
		return nil, errors.New("the answer is not CBOR, or breaks off")
	case refusal != "":
		return nil, fmt.Errorf("the security module says %q", refusal)
	case len(document) == 0:
		return nil, errors.New("there is no document in the answer")
	}
	return document, nil
}

// Document is what a document says of the machine.
type Document struct {
	Module string         // such as i-0123456789abcdef0-tpm0123456789abcdef
	PCRs   map[int][]byte // SHA-384
}

// LastPCR is extended, with the hash of LastEvent, when the keys were had: a key policy
// that wants it to be zero releases them to nothing that runs later.
const (
	LastPCR   = 13
	LastEvent = "unlock: key released"
)

// Closed reports whether LastPCR is extended already.
func (d *Document) Closed() bool { return len(bytes.Trim(d.PCRs[LastPCR], "\x00")) > 0 }

// Parse reads a document (COSE_Sign1, untagged), without judging it.
func Parse(document []byte) (*Document, error) {
	r := &cbor{b: document}
	if r.head(cborArray) != 4 { // protected and unprotected header, payload, signature
		r.bad = true
	}
	r.bytes()
	r.skip(depth)
	payload := r.bytes()
	r.bytes()
	d := &Document{PCRs: map[int][]byte{}}
	p := &cbor{b: payload, bad: r.bad || len(r.b) > 0}
	p.fields(func(name string) {
		switch name {
		case "module_id":
			d.Module = p.text()
		case "nitrotpm_pcrs":
			for n := p.head(cborMap); p.more(&n); {
				pcr := p.head(cborUint)
				d.PCRs[int(pcr)] = p.bytes()
			}
		default:
			p.skip(depth)
		}
	})
	if p.bad || d.Module == "" {
		return nil, errors.New("the attestation document is malformed")
	}
	return d, nil
}

// depth is how far things may be nested that are skipped.
const depth = 4

// endless is the length of an item that ends with a break (0xff).
const endless = 1<<64 - 1

// cbor takes items from b. What is not there is bad, and all that
// follows.
type cbor struct {
	b   []byte
	bad bool
}

// item takes the head of an item: its major type and argument.
func (r *cbor) item() (major byte, n uint64) {
	if r.bad || len(r.b) == 0 {
		r.bad = true
		return cborOther, 0
	}
	major, n = r.b[0]>>5, uint64(r.b[0]&31)
	r.b = r.b[1:]
	if n < 24 {
		return major, n
	}
	if n == 31 && (major == cborArray || major == cborMap) {
		return major, endless
	}
	size := 1 << (n - 24)
	if n > 27 || size > len(r.b) {
		r.bad = true
		return cborOther, 0
	}
	n = 0
	for _, c := range r.b[:size] {
		n = n<<8 | uint64(c)
	}
	r.b = r.b[size:]
	return major, n
}

// head takes the head of an item that must be of a type.
func (r *cbor) head(major byte) uint64 {
	m, n := r.item()
	if m != major {
		r.bad = true
	}
	if r.bad {
		return 0
	}
	return n
}

func (r *cbor) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *cbor) bytes() []byte { return r.take(r.head(cborBytes)) }

func (r *cbor) text() string { return strings.ToValidUTF8(string(r.take(r.head(cborText))), "?") }

// fields takes a map whose keys are texts; value takes each value.
func (r *cbor) fields(value func(name string)) {
	for n := r.head(cborMap); r.more(&n); {
		if name := r.text(); !r.bad {
			value(name)
		}
	}
}

// more reports whether an item goes on that has n parts left, and counts the next one.
func (r *cbor) more(n *uint64) bool {
	if *n != endless && *n > 0 {
		*n--
		return !r.bad
	}
	if *n == endless && bytes.HasPrefix(r.b, []byte{0xff}) {
		r.take(1)
		return false
	}
	return *n == endless && !r.bad
}

// skip takes an item, whatever it is.
func (r *cbor) skip(depth int) {
	major, n := r.item()
	if depth == 0 {
		r.bad = true
	}
	switch major {
	case cborBytes, cborText:
		r.take(n)
	case cborMap:
		for r.more(&n) {
			r.skip(depth - 1)
			r.skip(depth - 1)
		}
	case cborArray:
		for r.more(&n) {
			r.skip(depth - 1)
		}
	case cborTag:
		r.skip(depth - 1)
	case cborUint, cborNint, cborOther:
	}
}
