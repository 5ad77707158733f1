// Package secret keeps key material: passphrases, volume keys, data keys.
//
// A Bytes lives in its own anonymous mapping, outside the Go heap: locked
// (mlock), left out of core dumps (MADV_DONTDUMP) and out of children
// (MADV_DONTFORK), never moved or copied by the collector, and unmapped after it
// has been overwritten. It has no way to become a string by accident: every
// formatting verb prints "[secret]" and encoders refuse it.
//
// What cannot be wiped from here: copies that a library makes (hash and cipher
// states, an HTTP response's buffers), registers and stack frames. Do wraps code
// that makes such copies; where the toolchain was built with
// GOEXPERIMENT=runtimesecret it erases them, elsewhere it only calls the
// function.
package secret

import (
	"errors"
	"fmt"
)

// NoPreemption is the setting, in GODEBUG, that keeps Go's runtime from interrupting
// code by signals. The kernel saves the registers for a signal's handler on a stack,
// with what was copied last in the vector registers, and nothing overwrites that. The
// runtime reads the setting when a program starts.
const NoPreemption = "asyncpreemptoff=1"

// Bytes is key material. The zero value and nil are empty. Whoever receives a
// Bytes from a function that says so wipes it; Wipe may be called twice.
// A Bytes is not safe for use by several goroutines while one of them wipes it.
type Bytes struct {
	page []byte // whole mapping, a multiple of the page size
	n    int    // bytes in use
}

// New returns n zero bytes. The caller wipes them. A machine that cannot give
// one more page is out of memory, and New panics as the runtime itself would.
// Failing to lock the page (RLIMIT_MEMLOCK) is not an error.
func New(n int) *Bytes {
	if n <= 0 {
		return &Bytes{}
	}
	page, err := newPage(n)
	if err != nil {
		panic(fmt.Sprintf("secret: mapping %d bytes: %v", n, err))
	}
	return &Bytes{page: page, n: n}
}

// Take moves b into a new Bytes and overwrites b with zeros. The caller wipes
// the result.
func Take(b []byte) *Bytes {
	s := New(len(b))
	copy(s.Bytes(), b)
	clear(b)
	return s
}

// Clone returns a copy of s, which the caller wipes.
func (s *Bytes) Clone() *Bytes {
	c := New(s.Len())
	copy(c.Bytes(), s.Bytes())
	return c
}

// Bytes returns the key material itself, not a copy: valid until Wipe.
func (s *Bytes) Bytes() []byte {
	if s == nil {
		return nil
	}
	return s.page[:s.n:s.n]
}

// Len returns the number of bytes; 0 after Wipe.
func (s *Bytes) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Truncate shortens s to its first n bytes and overwrites the rest.
func (s *Bytes) Truncate(n int) {
	if n < 0 || n >= s.Len() {
		return
	}
	clear(s.page[n:s.n])
	s.n = n
}

// Wipe overwrites the key material and gives the memory back.
func (s *Bytes) Wipe() {
	if s == nil || s.page == nil {
		return
	}
	clear(s.page)
	freePage(s.page)
	s.page, s.n = nil, 0
}

// Format implements fmt.Formatter: all verbs print "[secret]".
func (s *Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText refuses: secrets are not written to JSON, TOML or logs.
func (s *Bytes) MarshalText() ([]byte, error) {
	return nil, errors.New("secret: refusing to encode key material")
}
