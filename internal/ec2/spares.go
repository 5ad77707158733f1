package ec2

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// spareConns are opened beside the first connection to an address: token, role
	// and credentials are three requests, and EC2's IMDS closes the connection after
	// each answer ("Connection: close"). Opened one after the other, they would cost
	// two further round trips.
	spareConns = 2
	spareFor   = 5 * time.Second // older ones may have been given up by the other side
)

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// spares dials, and keeps connections that were opened ahead.
type spares struct {
	open   dialer
	ctx    context.Context // of connections being opened ahead
	cancel context.CancelFunc

	mu    sync.Mutex
	ahead map[string]chan spare // by address
	wait  sync.WaitGroup
}

type spare struct {
	conn net.Conn
	when time.Time
}

func newSpares(dial dialer) *spares {
	if dial == nil {
		dial = (&net.Dialer{Control: setMark}).DialContext
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &spares{
		ctx: ctx, cancel: cancel,
		open: func(ctx context.Context, network, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			return dial(ctx, network, addr)
		},
		ahead: map[string]chan spare{},
	}
}

// dial gives away a spare connection if one is ready. With the first connection to
// an address it opens the spares.
func (s *spares) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	ready, known := s.ahead[addr]
	if !known {
		ready = make(chan spare, spareConns)
		s.ahead[addr] = ready
		for range spareConns {
			s.wait.Go(func() {
				if conn, err := s.open(s.ctx, network, addr); err == nil {
					ready <- spare{conn, time.Now()}
				}
			})
		}
	}
	s.mu.Unlock()
	for {
		select {
		case a := <-ready:
			if time.Since(a.when) < spareFor {
				return a.conn, nil
			}
			a.conn.Close()
		default:
			return s.open(ctx, network, addr)
		}
	}
}

// close closes what nobody took.
func (s *spares) close() {
	s.cancel()
	s.wait.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ready := range s.ahead {
		for len(ready) > 0 {
			(<-ready).conn.Close()
		}
	}
}
