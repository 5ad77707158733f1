// Package tpm sends commands to a TPM 2.0: what it takes to have NitroTPM answer a
// request, and to read and extend PCRs (TCG, Trusted Platform Module Library, parts 2
// and 3). It makes the commands' bytes itself, and knows nothing of what is in a request.
//
// All authorizations are passwords, and empty: sessions with keys would guard a bus
// between processor and TPM, and NitroTPM has none.
package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// Device is the TPM itself. It is open to one program at a time.
const Device = "/dev/tpm0"

// TPM is a TPM to which nobody else sends commands. Its methods are for one goroutine
// at a time. Those with a context wait, until that ends, for a TPM that is busy; a
// command that the TPM has taken cannot be interrupted.
type TPM struct {
	rw io.ReadWriteCloser
}

// New returns a TPM that reads commands from rw and writes responses to it.
func New(rw io.ReadWriteCloser) *TPM { return &TPM{rw} }

// appears is how long a device is waited for whose driver may still be starting.
const appears = 5 * time.Second

const (
	brokenHint = "the TPM, or its driver, fails: look at the kernel's messages for it, reboot the instance, and take another one if that does not help"
	busyHint   = "another program holds the TPM: see which one has " + Device + " open"
	noTPMHint  = "launch the instance from an image that was registered with --tpm-support v2.0 --boot-mode uefi, on an instance type with NitroTPM; the initramfs needs tpm_crb and tpm_tis where they are modules"
)

// Open opens the TPM. It waits while another program has it open.
func Open(ctx context.Context, path string) (*TPM, error) {
	late := time.Now().Add(appears)
	for {
		// Not by package os, which would make the device non-blocking: it then says that
		// there is nothing to read before the answer is there.
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return New(device(fd)), nil
		case err == unix.EINTR:
			continue
		case err == unix.EBUSY:
			err = hint.With(err, busyHint)
		case errors.Is(err, fs.ErrNotExist) || err == unix.ENODEV || err == unix.ENXIO:
			err = hint.With(fmt.Errorf("there is no TPM: %w", err), noTPMHint)
			if time.Now().After(late) {
				return nil, fmt.Errorf("opening %s: %w", path, err)
			}
		default:
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
		if !pause(ctx) {
			return nil, fmt.Errorf("opening %s: %w", path, err)
		}
	}
}

// Close lets others open the TPM.
func (t *TPM) Close() error { return t.rw.Close() }

// pause waits before another try, and reports whether there is time for one.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50*time.Millisecond + rand.N(100*time.Millisecond)):
		return true
	}
}

// device is the file descriptor of a device in blocking mode.
type device int

func (d device) Read(b []byte) (int, error) {
	n, err := again(func() (int, error) { return unix.Read(int(d), b) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

func (d device) Write(b []byte) (int, error) {
	return again(func() (int, error) { return unix.Write(int(d), b) })
}

func (d device) Close() error { return unix.Close(int(d)) }

func again(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// Response codes (part 2, section 6.6.3). Those that are about a handle, parameter or
// session have its number in further bits.
const (
	rcRetry       = 0x922
	rcYielded     = 0x908
	rcTesting     = 0x90a
	rcLockout     = 0x921
	rcCommandCode = 0x143
	rcNVSpace     = 0x14b
	rcNVDefined   = 0x14c
	rcBadAuth     = 0x0a2
	rcAuthFail    = 0x08e
)

// Error is the TPM's refusal of a command.
type Error struct {
	Command string
	Code    uint32 // as it came
}

func (e *Error) Error() string { return fmt.Sprintf("TPM2_%s: response code %#x", e.Command, e.Code) }

// Advice is what can be done about it, if that is known.
func (e *Error) Advice() string {
	if e.busy() {
		return "the TPM stays busy: reboot the instance"
	}
	switch e.bare() {
	case rcLockout:
		return "the TPM is locked after wrong authorizations: wait for its recovery time, or clear the lockout with tpm2_dictionarylockout --clear-lockout"
	case rcBadAuth, rcAuthFail:
		return "the owner authorization of the TPM is set, and must be empty: tpm2_changeauth -c owner, or launch a new instance"
	}
	return ""
}

// bare is the code without the number of what it is about.
func (e *Error) bare() uint32 {
	switch {
	case e.Code&0xc0 == 0xc0: // a parameter
		return e.Code &^ 0xf40
	case e.Code&0x80 != 0: // a handle, or a session
		return e.Code &^ 0xf00
	}
	return e.Code
}

// busy reports whether the TPM would have taken the command at another time.
func (e *Error) busy() bool {
	return e.Code == rcRetry || e.Code == rcYielded || e.Code == rcTesting
}

// Refused reports whether err is the TPM's refusal of something that it would refuse
// again.
func Refused(err error) bool {
	var e *Error
	return errors.As(err, &e) && !e.busy()
}

// is reports whether the TPM answered with that code.
func is(err error, code uint32) bool {
	var e *Error
	return errors.As(err, &e) && e.bare() == code
}

// Structure tags, and the session that is a password.
const (
	tagNoSessions = 0x8001
	tagSessions   = 0x8002
	rsPW          = 0x40000009
	rhOwner       = 0x40000001
)

// headerSize is that of commands and responses: tag, size of all, code.
const headerSize = 10

// maxResponse is the most that the kernel's drivers pass on (TPM_BUFSIZE).
const maxResponse = 4096

var order = binary.BigEndian

// command is a command to the TPM.
type command struct {
	name    string
	code    uint32
	handles []uint32
	auth    bool // the first handle is authorized, by an empty password
	params  []byte
}

// bytes is the command as it is sent (part 1, section 18).
func (c command) bytes() []byte {
	tag := uint16(tagNoSessions)
	if c.auth {
		tag = tagSessions
	}
	b := order.AppendUint32(order.AppendUint16(nil, tag), 0)
	b = order.AppendUint32(b, c.code)
	for _, h := range c.handles {
		b = order.AppendUint32(b, h)
	}
	if c.auth {
		const size = 4 + 2 + 1 + 2 // handle, nonce, attributes, password
		b = order.AppendUint32(order.AppendUint32(b, size), rsPW)
		b = append(b, 0, 0, 0, 0, 0)
	}
	b = append(b, c.params...)
	order.PutUint32(b[2:], uint32(len(b)))
	return b
}

// do sends a command, until the TPM gets to it, and returns the response's parameters.
func (t *TPM) do(ctx context.Context, c command) (*reader, error) {
	for {
		r, err := t.once(c)
		var e *Error
		busy := errors.As(err, &e) && e.busy() || errors.Is(err, unix.EBUSY)
		if !busy || !pause(ctx) {
			return r, err
		}
	}
}

func (t *TPM) once(c command) (*reader, error) {
	if _, err := t.rw.Write(c.bytes()); err != nil {
		return nil, fmt.Errorf("sending TPM2_%s: %w", c.name, err)
	}
	b := make([]byte, maxResponse)
	n, err := io.ReadAtLeast(t.rw, b, headerSize)
	size := headerSize
	if err == nil {
		size = int(order.Uint32(b[2:]))
		if size < headerSize || size > len(b) || n > size {
			return nil, malformed(c)
		}
		_, err = io.ReadFull(t.rw, b[n:size])
	}
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading the response to TPM2_%s: %w", c.name, err), brokenHint)
	}
	if code := order.Uint32(b[6:]); code != 0 {
		return nil, &Error{c.name, code}
	}
	r := &reader{b: b[headerSize:size]}
	if c.auth { // the parameters have a size, and authorizations follow them
		r = r.sub(int(r.uint32()))
	}
	if r.bad {
		return nil, malformed(c)
	}
	return r, nil
}

func malformed(c command) error {
	return hint.With(fmt.Errorf("the response to TPM2_%s is malformed", c.name), brokenHint)
}

// reader takes a response apart. What is not there reads as zero, and is bad.
type reader struct {
	b   []byte
	bad bool
}

// bytes takes the next n.
func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) sub(n int) *reader {
	b := r.bytes(n)
	return &reader{b, r.bad}
}

// sized takes what its size precedes (TPM2B).
func (r *reader) sized() []byte { return r.bytes(int(r.uint16())) }

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return order.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return order.Uint32(b)
	}
	return 0
}
