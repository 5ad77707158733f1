package aws

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// seen remembers the buffers into which something was read, to overwrite them
// when it is over. TLS decrypts in place, in the buffer into which it read the
// ciphertext; HTTP and the SDK read through buffers of their own. None of them
// wipes.
type seen struct {
	mu   sync.Mutex
	bufs [][]byte
}

// read reads from r into p and remembers p.
func (s *seen) read(r io.Reader, p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := r.Read(p)
	if n > 0 {
		s.bufs = append(s.bufs, p[:n])
	}
	return n, err
}

func (s *seen) wipe() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.bufs {
		clear(b)
	}
	s.bufs = nil
}

// wiping is a connection whose buffers seen gets to know. It lies below TLS
// (and so gets at what was decrypted in place) and above it. Closing it does not
// wipe: HTTP closes a connection while an answer from it is still being read.
type wiping struct {
	net.Conn
	seen *seen
}

func (w wiping) Read(p []byte) (int, error) { return w.seen.read(w.Conn, p) }

// records is a connection that hands TLS one record at a time: its header, then
// the rest. TLS moves what it has read when its buffer must grow for the rest of a
// record, and decrypts it in the new place, which nothing was read into and seen
// does not know: with records only a header is ever moved.
type records struct {
	net.Conn
	header [recordHeader]byte
	got    int // bytes of the header that came
	left   int // bytes of the record that follow
}

// recordHeader is the length of a record's header, whose last two bytes are the
// length of what follows (RFC 8446, section 5.1).
const recordHeader = 5

func (r *records) Read(p []byte) (int, error) {
	if r.left > 0 {
		n, err := r.Conn.Read(p[:min(len(p), r.left)])
		r.left -= n
		return n, err
	}
	n, err := r.Conn.Read(p[:min(len(p), recordHeader-r.got)])
	r.got += copy(r.header[r.got:], p[:n])
	if r.got == recordHeader {
		r.got, r.left = 0, int(binary.BigEndian.Uint16(r.header[recordHeader-2:]))
	}
	return n, err
}

// readError is an answer that broke off.
type readError struct{ err error }

func (e *readError) Error() string { return "reading the answer: " + e.err.Error() }

func (e *readError) Unwrap() error { return e.err }

// wipingBody is a response's body that overwrites what was read from it when it
// is closed. Whoever reads it must be done with the buffers by then.
type wipingBody struct {
	io.ReadCloser
	seen seen
	left int // bytes that may still come
}

func (b *wipingBody) Read(p []byte) (int, error) {
	n, err := b.seen.read(b.ReadCloser, p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

func (b *wipingBody) Close() error {
	err := b.ReadCloser.Close()
	b.seen.wipe()
	return err
}
