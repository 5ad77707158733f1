package pipecloud

import (
	"bytes"
	"net"
	"sync"
	"time"
)

// buffered is an end of a net.Pipe to which writing does not wait for the reader, as
// with a socket: whoever waits with a lock in hand stops fake time.
type buffered struct {
	net.Conn
	queue  chan []byte
	closed chan struct{}
	once   sync.Once
}

func bufferedPipe(wait *sync.WaitGroup) (net.Conn, net.Conn) {
	var ends [2]*buffered
	a, b := net.Pipe()
	for i, c := range []net.Conn{a, b} {
		ends[i] = &buffered{Conn: c, queue: make(chan []byte, 1000), closed: make(chan struct{})}
		wait.Go(ends[i].pump)
	}
	return ends[0], ends[1]
}

func (b *buffered) Write(p []byte) (int, error) {
	select {
	case <-b.closed:
		return 0, net.ErrClosed
	case b.queue <- bytes.Clone(p):
		return len(p), nil
	}
}

// pump writes what is queued, also after Close, for a while.
func (b *buffered) pump() {
	defer b.Conn.Close()
	for {
		select {
		case p := <-b.queue:
			if _, err := b.Conn.Write(p); err != nil {
				return
			}
		case <-b.closed:
			for len(b.queue) > 0 {
				if _, err := b.Conn.Write(<-b.queue); err != nil {
					return
				}
			}
			return
		}
	}
}

func (b *buffered) SetDeadline(t time.Time) error      { return b.Conn.SetReadDeadline(t) }
func (b *buffered) SetWriteDeadline(t time.Time) error { return nil }

func (b *buffered) Close() error {
	b.once.Do(func() {
		_ = b.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_ = b.Conn.SetReadDeadline(time.Now())
		close(b.closed)
	})
	return nil
}
