package attested

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
)

// Command and response codes (TCG, TPM Library part 2), and Amazon's command.
const (
	Undefine   = 0x122
	Define     = 0x12a
	Write      = 0x137
	Read       = 0x14e
	ReadPublic = 0x169
	Capability = 0x17a
	PCRRead    = 0x17e
	PCRExtend  = 0x182
	Vendor     = 0x20000001

	CommandCode = 0x143
	NVSpace     = 0x14b
	NVDefined   = 0x14c
	Handle      = 0x18b // of handle 1
	Size        = 0x2d5 // of parameter 2
	BadAuth     = 0x9a2 // of session 1
	Lockout     = 0x921
	Retry       = 0x922
	Yielded     = 0x908
	Testing     = 0x90a
)

var be = binary.BigEndian

// NV is an NV index.
type NV struct {
	Public []byte // after the handle: nameAlg, attributes, policy, size
	Data   []byte
}

// Mine is what is public of an index that this program makes; attributes are
// AUTHWRITE and AUTHREAD.
var Mine = []byte{0x00, 0x0b, 0x00, 0x04, 0x00, 0x04, 0, 0, 0x20, 0x00}

// TPM knows the commands about NV indices, and Amazon's. It takes nothing that is not
// exactly as the specification has it.
type TPM struct {
	mu      sync.Mutex
	Indices map[uint32]*NV
	Chunk   uint32                                // TPM_PT_NV_BUFFER_MAX; 0: it does not say
	NSM     func(request []byte) []byte           // the vendor command; nil: there is none
	Fault   func(code uint32, n int) uint32       // the response code to the n-th such command; 0: none
	Garble  func(code uint32, resp []byte) []byte // changes responses
	Count   map[uint32]int
	pending []byte
	Closed  bool
}

// NewTPM returns one without indices.
func NewTPM() *TPM {
	return &TPM{Indices: map[uint32]*NV{}, Chunk: 1024, Count: map[uint32]int{}}
}

// Close implements io.ReadWriteCloser.
func (f *TPM) Close() error { f.Closed = true; return nil }

// Read gives the response to the last command.
func (f *TPM) Read(b []byte) (int, error) {
	if len(f.pending) == 0 {
		return 0, io.EOF
	}
	n := copy(b, f.pending)
	f.pending = f.pending[n:]
	return n, nil
}

// Write takes a command.
func (f *TPM) Write(cmd []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	code := be.Uint32(cmd[6:])
	f.Count[code]++
	rc, params := uint32(0), []byte(nil)
	if f.Fault != nil {
		rc = f.Fault(code, f.Count[code])
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
	if f.Garble != nil {
		resp = f.Garble(code, resp)
	}
	f.pending = resp
	return len(cmd), nil
}

// password is an authorization area with one empty password.
var password = []byte{0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}

func (f *TPM) answer(cmd []byte, code uint32) (rc uint32, params []byte) {
	handles := map[uint32]int{Undefine: 2, Define: 1, Write: 2, Read: 2, Vendor: 2, PCRExtend: 1, ReadPublic: 1}[code]
	auth := code != ReadPublic && code != Capability && code != PCRRead
	want := byte(1)
	if auth {
		want = 2
	}
	if int(be.Uint32(cmd[2:])) != len(cmd) || cmd[0] != 0x80 || cmd[1] != want {
		return Size, nil
	}
	body := cmd[10:]
	var h [2]uint32
	for i := range handles {
		h[i], body = be.Uint32(body), body[4:]
	}
	if auth {
		if !bytes.HasPrefix(body, password) {
			return BadAuth, nil
		}
		body = body[len(password):]
	}
	switch code {
	case Capability:
		return f.capability(be.Uint32(body), be.Uint32(body[4:]), be.Uint32(body[8:]))
	case Define:
		public := body[4:]
		handle := be.Uint32(public)
		switch {
		case h[0] != 0x40000001 || be.Uint16(body) != 0 || int(be.Uint16(body[2:])) != len(public):
			return Size, nil
		case f.Indices[handle] != nil:
			return NVDefined, nil
		}
		f.Indices[handle] = &NV{bytes.Clone(public[4:]), bytes.Repeat([]byte{0xff}, int(be.Uint16(public[12:])))}
		return 0, nil
	case PCRExtend, PCRRead:
		return CommandCode, nil // swtpm judges these
	}
	handle := h[0]
	if code == Undefine {
		handle = h[1]
	}
	i := f.Indices[handle]
	if i == nil {
		return Handle, nil
	}
	switch code {
	case Undefine:
		if h[0] != 0x40000001 || len(body) != 0 {
			return Size, nil
		}
		delete(f.Indices, handle)
	case ReadPublic:
		return 0, append(append(be.AppendUint32([]byte{0, byte(4 + len(i.Public))}, handle), i.Public...), 0, 2, 0, 0x0b)
	case Write:
		n, at := int(be.Uint16(body)), int(be.Uint16(body[len(body)-2:]))
		if h[0] != h[1] || len(body) != n+4 || n > int(f.Chunk) || at+n > len(i.Data) {
			return Size, nil
		}
		copy(i.Data[at:], body[2:2+n])
		i.Public[2] |= 0x20 // written
	case Read:
		n, at := int(be.Uint16(body)), int(be.Uint16(body[2:]))
		if h[0] != h[1] || len(body) != 4 || n > int(max(f.Chunk, 512)) || at+n > len(i.Data) {
			return Size, nil
		}
		return 0, append(be.AppendUint16(nil, uint16(n)), i.Data[at:at+n]...)
	case Vendor:
		if f.NSM == nil || h[0] != h[1] || len(body) != 0 {
			return CommandCode, nil
		}
		request := bytes.Clone(i.Data)
		for j := range i.Data {
			i.Data[j] = 0xff
		}
		copy(i.Data, f.NSM(request))
	}
	return 0, nil
}

func (f *TPM) capability(kind, first, n uint32) (uint32, []byte) {
	out := be.AppendUint32([]byte{0}, kind)
	switch {
	case kind == 6 && first == 0x12c && f.Chunk > 0:
		return 0, be.AppendUint32(be.AppendUint32(be.AppendUint32(out, 1), first), f.Chunk)
	case kind == 1:
		out = be.AppendUint32(out, uint32(len(f.Indices)))
		for h := range f.Indices {
			out = be.AppendUint32(out, h)
		}
		return 0, out
	}
	return 0, be.AppendUint32(out, 0)
}
