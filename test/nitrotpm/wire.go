package nitrotpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Commands (part 2, table 12), and Amazon's own.
const (
	ccNVUndefineSpace = 0x122
	ccNVDefineSpace   = 0x12a
	ccNVWrite         = 0x137
	ccStartup         = 0x144
	ccShutdown        = 0x145
	ccNVRead          = 0x14e
	ccNVReadPublic    = 0x169
	ccGetCapability   = 0x17a
	ccPCRRead         = 0x17e
	ccPCRExtend       = 0x182
	ccNSM             = 0x20000001
)

// Response codes (part 2, section 6.6). A number of a handle or parameter is added.
const (
	rcSuccess     = 0
	rcCommandCode = 0x143
	rcCommandSize = 0x142
	rcAuthMissing = 0x125
	rcNVRange     = 0x146
	rcNVSpace     = 0x14b
	rcValue       = 0x084
	rcSize        = 0x095
	rcBadAuth     = 0x0a2
	rcLockout     = 0x921
	rcRetry       = 0x922
	rcYielded     = 0x908
	rcTesting     = 0x90a

	parameter1, parameter2 = 0x140, 0x240
	session1               = 0x900
)

const (
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
	headerSize    = 10
	maxCommand    = 4096
)

// command that a machine sent.
type command struct {
	raw     []byte
	tag     uint16
	code    uint32
	handles []uint32
	auth    []byte // the sessions
	params  []byte
}

// handleCount of the commands that are looked into.
var handleCount = map[uint32]int{ccNVUndefineSpace: 2, ccNVDefineSpace: 1, ccNVWrite: 2, ccNVRead: 2, ccNVReadPublic: 1, ccNSM: 2}

var be = binary.BigEndian

// parse splits a command. What does not add up is left to swtpm to refuse.
func parse(raw []byte) (*command, bool) {
	if len(raw) < headerSize {
		return nil, false
	}
	c := &command{raw: raw, tag: be.Uint16(raw), code: be.Uint32(raw[6:])}
	rest := raw[headerSize:]
	for range handleCount[c.code] {
		if len(rest) < 4 {
			return nil, false
		}
		c.handles, rest = append(c.handles, be.Uint32(rest)), rest[4:]
	}
	if c.tag == tagSessions {
		if len(rest) < 4 || int(be.Uint32(rest)) > len(rest)-4 {
			return nil, false
		}
		n := 4 + int(be.Uint32(rest))
		c.auth, rest = rest[4:n], rest[n:]
	}
	c.params = rest
	return c, true
}

// with returns the command with another code and parameters, handles and sessions being
// the same.
func (c *command) with(code uint32, params []byte) []byte {
	b := build(c.tag, code)
	for _, h := range c.handles {
		b = be.AppendUint32(b, h)
	}
	if c.tag == tagSessions {
		b = append(be.AppendUint32(b, uint32(len(c.auth))), c.auth...)
	}
	return sized(append(b, params...))
}

// build begins a command or an answer.
func build(tag uint16, code uint32) []byte {
	return be.AppendUint32(be.AppendUint32(be.AppendUint16(nil, tag), 0), code)
}

// sized writes the length.
func sized(b []byte) []byte {
	be.PutUint32(b[2:], uint32(len(b)))
	return b
}

// failed is an answer with nothing but a code.
func failed(code uint32) []byte { return sized(build(tagNoSessions, code)) }

// code of an answer.
func code(answer []byte) uint32 {
	if len(answer) < headerSize {
		return ^uint32(0)
	}
	return be.Uint32(answer[6:])
}

// succeeded is the answer to a command with sessions; each was a password.
func (c *command) succeeded(params []byte) []byte {
	b := be.AppendUint32(build(tagSessions, rcSuccess), uint32(len(params)))
	b = append(b, params...)
	return sized(append(b, 0, 0, 1, 0, 0)) // no nonce, continueSession, no HMAC
}

// password reports whether there is one session, which is a password.
func (c *command) password() bool {
	const passwordSession = 0x40000009
	a := c.auth
	if c.tag != tagSessions || len(a) < 6 || be.Uint32(a) != passwordSession {
		return false
	}
	n := 6 + int(be.Uint16(a[4:])) + 1 // the nonce and the attributes
	return len(a) >= n+2 && len(a) == n+2+int(be.Uint16(a[n:]))
}

// readMessage reads one command or answer.
func readMessage(r io.Reader) ([]byte, error) {
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	n := be.Uint32(b[2:])
	if n < headerSize || n > maxCommand {
		return nil, fmt.Errorf("a message of %d bytes", n)
	}
	b = append(b, make([]byte, n-headerSize)...)
	if _, err := io.ReadFull(r, b[headerSize:]); err != nil {
		return nil, errors.Join(errors.New("a message ends in the middle"), err)
	}
	return b, nil
}
