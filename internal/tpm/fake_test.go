package tpm_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
)

// Command and response codes (TCG, TPM Library part 2).
const (
	ccUndefine   = 0x122
	ccDefine     = 0x12a
	ccWrite      = 0x137
	ccRead       = 0x14e
	ccReadPublic = 0x169
	ccCapability = 0x17a
	ccPCRRead    = 0x17e
	ccPCRExtend  = 0x182
	ccVendor     = 0x20000001

	rcCommandCode = 0x143
	rcNVSpace     = 0x14b
	rcNVDefined   = 0x14c
	rcHandle      = 0x18b // of handle 1
	rcSize        = 0x2d5 // of parameter 2
	rcBadAuth     = 0x9a2 // of session 1
	rcLockout     = 0x921
	rcRetry       = 0x922
	rcYielded     = 0x908
	rcTesting     = 0x90a
)

var be = binary.BigEndian

// nv is an NV index.
type nv struct {
	public []byte // after the handle: nameAlg, attributes, policy, size
	data   []byte
}

// mine is what is public of an index that this program makes; attributes are
// AUTHWRITE and AUTHREAD.
var mine = []byte{0x00, 0x0b, 0x00, 0x04, 0x00, 0x04, 0, 0, 0x20, 0x00}

// fake is a TPM that knows the commands of this package, and takes nothing that is not
// exactly as the specification has it.
type fake struct {
	mu      sync.Mutex
	indices map[uint32]*nv
	chunk   uint32                                // TPM_PT_NV_BUFFER_MAX; 0: it does not say
	nsm     func(request []byte) []byte           // the vendor command; nil: there is none
	fault   func(code uint32, n int) uint32       // the response code to the n-th such command; 0: none
	garble  func(code uint32, resp []byte) []byte // changes responses
	seen    []uint32
	count   map[uint32]int
	pending []byte
	closed  bool
}

func newFake() *fake {
	return &fake{indices: map[uint32]*nv{}, chunk: 1024, count: map[uint32]int{}}
}

func (f *fake) Close() error { f.closed = true; return nil }

func (f *fake) Read(b []byte) (int, error) {
	if len(f.pending) == 0 {
		return 0, io.EOF
	}
	n := copy(b, f.pending)
	f.pending = f.pending[n:]
	return n, nil
}

func (f *fake) Write(cmd []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	code := be.Uint32(cmd[6:])
	f.seen = append(f.seen, code)
	f.count[code]++
	rc, params := uint32(0), []byte(nil)
	if f.fault != nil {
		rc = f.fault(code, f.count[code])
	}
	if rc == 0 {
		rc, params = f.answer(cmd, code)
	}
	resp := append([]byte{0x80, 0x01, 0, 0, 0, 0, 0, 0, 0, 0}, params...)
	if rc == 0 && cmd[1] == 2 {
		resp = append(be.AppendUint32([]byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 0, 0}, uint32(len(params))), params...)
		resp = append(resp, 0, 0, 0, 0, 0)
	}
	be.PutUint32(resp[2:], uint32(len(resp)))
	be.PutUint32(resp[6:], rc)
	if f.garble != nil {
		resp = f.garble(code, resp)
	}
	f.pending = resp
	return len(cmd), nil
}

// password is an authorization area with one empty password.
var password = []byte{0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}

func (f *fake) answer(cmd []byte, code uint32) (rc uint32, params []byte) {
	handles := map[uint32]int{ccUndefine: 2, ccDefine: 1, ccWrite: 2, ccRead: 2, ccVendor: 2, ccPCRExtend: 1, ccReadPublic: 1}[code]
	auth := code != ccReadPublic && code != ccCapability && code != ccPCRRead
	want := byte(1)
	if auth {
		want = 2
	}
	if int(be.Uint32(cmd[2:])) != len(cmd) || cmd[0] != 0x80 || cmd[1] != want {
		return rcSize, nil
	}
	body := cmd[10:]
	var h [2]uint32
	for i := range handles {
		h[i], body = be.Uint32(body), body[4:]
	}
	if auth {
		if !bytes.HasPrefix(body, password) {
			return rcBadAuth, nil
		}
		body = body[len(password):]
	}
	switch code {
	case ccCapability:
		return f.capability(be.Uint32(body), be.Uint32(body[4:]), be.Uint32(body[8:]))
	case ccDefine:
		public := body[4:]
		handle := be.Uint32(public)
		switch {
		case h[0] != 0x40000001 || be.Uint16(body) != 0 || int(be.Uint16(body[2:])) != len(public):
			return rcSize, nil
		case f.indices[handle] != nil:
			return rcNVDefined, nil
		}
		f.indices[handle] = &nv{bytes.Clone(public[4:]), bytes.Repeat([]byte{0xff}, int(be.Uint16(public[12:])))}
		return 0, nil
	case ccPCRExtend, ccPCRRead:
		return rcCommandCode, nil // swtpm judges these
	}
	handle := h[0]
	if code == ccUndefine {
		handle = h[1]
	}
	i := f.indices[handle]
	if i == nil {
		return rcHandle, nil
	}
	switch code {
	case ccUndefine:
		if h[0] != 0x40000001 || len(body) != 0 {
			return rcSize, nil
		}
		delete(f.indices, handle)
	case ccReadPublic:
		return 0, append(append(be.AppendUint32([]byte{0, byte(4 + len(i.public))}, handle), i.public...), 0, 2, 0, 0x0b)
	case ccWrite:
		n, at := int(be.Uint16(body)), int(be.Uint16(body[len(body)-2:]))
		if h[0] != h[1] || len(body) != n+4 || n > int(f.chunk) || at+n > len(i.data) {
			return rcSize, nil
		}
		copy(i.data[at:], body[2:2+n])
		i.public[2] |= 0x20 // written
	case ccRead:
		n, at := int(be.Uint16(body)), int(be.Uint16(body[2:]))
		if h[0] != h[1] || len(body) != 4 || n > int(max(f.chunk, 512)) || at+n > len(i.data) {
			return rcSize, nil
		}
		return 0, append(be.AppendUint16(nil, uint16(n)), i.data[at:at+n]...)
	case ccVendor:
		if f.nsm == nil || h[0] != h[1] || len(body) != 0 {
			return rcCommandCode, nil
		}
		request := bytes.Clone(i.data)
		for j := range i.data {
			i.data[j] = 0xff
		}
		copy(i.data, f.nsm(request))
	}
	return 0, nil
}

func (f *fake) capability(kind, first, n uint32) (uint32, []byte) {
	out := be.AppendUint32([]byte{0}, kind)
	switch {
	case kind == 6 && first == 0x12c && f.chunk > 0:
		return 0, be.AppendUint32(be.AppendUint32(be.AppendUint32(out, 1), first), f.chunk)
	case kind == 1:
		out = be.AppendUint32(out, uint32(len(f.indices)))
		for h := range f.indices {
			out = be.AppendUint32(out, h)
		}
		return 0, out
	}
	return 0, be.AppendUint32(out, 0)
}
