package nitrotpm

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"slices"
)

// This file is NV indices that swtpm is too small for.

// swtpmIndex is swtpm's limit of an index, MaxIndex that of this TPM.
const (
	swtpmIndex = 2048
	MaxIndex   = 8192
	stub       = 8 // bytes of swtpm's index in the place of a large one
)

// index is a large one.
type index struct {
	public  []byte // TPMS_NV_PUBLIC, with the real size
	data    []byte
	written bool
}

const attributeWritten = 1 << 29 // TPMA_NV_WRITTEN

// public splits TPMS_NV_PUBLIC: nvIndex, nameAlg, attributes, authPolicy, dataSize.
func public(p []byte) (number uint32, size int, ok bool) {
	if len(p) < 14 || len(p) != 14+int(be.Uint16(p[10:])) {
		return 0, 0, false
	}
	return be.Uint32(p), int(be.Uint16(p[len(p)-2:])), true
}

// resized is a public area with another size.
func resized(p []byte, size int) []byte {
	p = slices.Clone(p)
	be.PutUint16(p[len(p)-2:], uint16(size))
	return p
}

// define answers NV_DefineSpace: parameters are the index's password and its public area.
func (t *TPM) define(c *command) ([]byte, error) {
	if t.strikes("nv-full") {
		return failed(rcNVSpace), nil
	}
	if t.strikes("owner-auth") {
		return failed(rcBadAuth | session1), nil
	}
	if t.strikes("lockout") {
		return failed(rcLockout), nil
	}
	p := c.params
	if len(p) < 2 || len(p) < 4+int(be.Uint16(p)) {
		return t.forward(c.raw)
	}
	auth := p[:2+int(be.Uint16(p))]
	area := p[len(auth)+2:]
	number, size, ok := public(area)
	if !ok || size <= swtpmIndex {
		return t.forward(c.raw)
	}
	if size > MaxIndex {
		return failed(rcSize | parameter2), nil
	}
	small := slices.Concat(auth, be.AppendUint16(nil, uint16(len(area))), resized(area, stub))
	answer, err := t.forward(c.with(ccNVDefineSpace, small))
	if err == nil && code(answer) == rcSuccess {
		t.indices[number] = &index{public: slices.Clone(area), data: blankData(size)}
	}
	return answer, err
}

// blankData is what an index holds that was not written.
func blankData(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// undefine answers NV_UndefineSpace.
func (t *TPM) undefine(c *command) ([]byte, error) {
	answer, err := t.forward(c.raw)
	if err == nil && code(answer) == rcSuccess {
		delete(t.indices, c.handles[1])
	}
	return answer, err
}

// checked has swtpm judge handles, sessions, attributes and locks of a command by another
// that does no harm.
func (t *TPM) checked(c *command, code uint32, params []byte) ([]byte, error) {
	return t.forward(c.with(code, params))
}

// Zero bytes at the beginning of an index, to be written or read.
var (
	writeNothing = []byte{0, 0, 0, 0}
	readNothing  = []byte{0, 0, 0, 0}
)

// write answers NV_Write: data and offset.
func (t *TPM) write(c *command, x *index) ([]byte, error) {
	p := c.params
	if len(p) < 4 || len(p) != 4+int(be.Uint16(p)) {
		return failed(rcCommandSize), nil
	}
	if !c.password() {
		return failed(rcAuthMissing), nil
	}
	data, offset := p[2:len(p)-2], int(be.Uint16(p[len(p)-2:]))
	if len(data) > t.bufferMax {
		return failed(rcSize | parameter1), nil
	}
	answer, err := t.checked(c, ccNVWrite, writeNothing)
	if err != nil || code(answer) != rcSuccess {
		return answer, err
	}
	if offset+len(data) > len(x.data) {
		return failed(rcNVRange), nil
	}
	copy(x.data[offset:], data)
	x.written = true
	return answer, nil
}

// read answers NV_Read: size and offset.
func (t *TPM) read(c *command, x *index) ([]byte, error) {
	if len(c.params) != 4 {
		return failed(rcCommandSize), nil
	}
	if !c.password() {
		return failed(rcAuthMissing), nil
	}
	size, offset := int(be.Uint16(c.params)), int(be.Uint16(c.params[2:]))
	if size > t.bufferMax {
		return failed(rcValue | parameter1), nil
	}
	answer, err := t.checked(c, ccNVRead, readNothing)
	if err != nil || code(answer) != rcSuccess {
		return answer, err
	}
	if offset+size > len(x.data) {
		return failed(rcNVRange), nil
	}
	return c.succeeded(append(be.AppendUint16(nil, uint16(size)), x.data[offset:offset+size]...)), nil
}

// readPublic answers NV_ReadPublic, with the size and the name of the large index.
func (t *TPM) readPublic(c *command, x *index) ([]byte, error) {
	answer, err := t.forward(c.raw)
	if err != nil || code(answer) != rcSuccess || c.tag != tagNoSessions || len(answer) < headerSize+2+14 {
		return answer, err
	}
	n := int(be.Uint16(answer[headerSize:]))
	area := resized(answer[headerSize+2:headerSize+2+n], len(x.data))
	name := be.AppendUint16(nil, be.Uint16(area[4:]))
	switch be.Uint16(area[4:]) {
	case 0x0004:
		h := sha1.Sum(area)
		name = append(name, h[:]...)
	case 0x000b:
		h := sha256.Sum256(area)
		name = append(name, h[:]...)
	case 0x000c:
		h := sha512.Sum384(area)
		name = append(name, h[:]...)
	case 0x000d:
		h := sha512.Sum512(area)
		name = append(name, h[:]...)
	default:
		return answer, nil
	}
	b := build(tagNoSessions, rcSuccess)
	b = append(be.AppendUint16(b, uint16(len(area))), area...)
	b = append(be.AppendUint16(b, uint16(len(name))), name...)
	return sized(b), nil
}
