package ec2

import (
	"context"
	"net"
	"sync"
	"time"

	"unlock/internal/aws"
)

const (
	// spareConns are opened beside the first connection to an address: token, role
	// and credentials are three requests, and EC2's IMDS closes the connection after
	// each answer ("Connection: close"). Opened one after the other, they would cost
	// two further round trips.
	spareConns = 2
	spareFor   = 5 * time.Second // older ones may have been given up by the other side
)

// spares dials, and keeps connections that were opened ahead.
type spares struct {
	open   aws.Dialer
	ahead  *aws.Ahead
	ctx    context.Context // of connections being opened ahead
	cancel context.CancelFunc

	mu    sync.Mutex
	known map[string]bool // addresses that have had their spares
	wait  sync.WaitGroup
}

func newSpares(dial aws.Dialer) *spares {
	if dial == nil {
		dial = (&net.Dialer{Control: setMark}).DialContext
	}
	s := &spares{known: map[string]bool{}, open: func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		return dial(ctx, network, addr)
	}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.ahead = aws.NewAhead(s.open, spareFor)
	return s
}

// dial gives away a spare connection if there is one. With the first connection to
// an address it opens the spares.
func (s *spares) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	known := s.known[addr]
	s.known[addr] = true
	s.mu.Unlock()
	if known {
		return s.ahead.Dial(ctx, network, addr)
	}
	for range spareConns {
		s.wait.Go(func() { s.ahead.Open(s.ctx, network, addr) })
	}
	return s.open(ctx, network, addr)
}

// close closes what nobody took.
func (s *spares) close() {
	s.cancel()
	s.wait.Wait()
	s.ahead.Close()
}
