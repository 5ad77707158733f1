package keys

import (
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

// wiping is a connection that overwrites what was read from it when it closes.
// It lies below TLS (so it gets at what was decrypted in place) and above it.
type wiping struct {
	net.Conn
	seen seen
}

func (w *wiping) Read(p []byte) (int, error) { return w.seen.read(w.Conn, p) }

// Close also ends a Read under way.
func (w *wiping) Close() error {
	err := w.Conn.Close()
	w.seen.wipe()
	return err
}

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
	return n, err
}

func (b *wipingBody) Close() error {
	err := b.ReadCloser.Close()
	b.seen.wipe()
	return err
}
