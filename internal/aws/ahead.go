package aws

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// Dialer opens connections.
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// Ahead opens connections ahead of their use, and gives each away once.
type Ahead struct {
	dial  Dialer
	fresh time.Duration // older ones may have been given up by the other side

	mu    sync.Mutex
	conns map[string][]*opening // by address
	wait  sync.WaitGroup
}

// opening is a connection being opened.
type opening struct {
	done chan struct{}
	conn net.Conn // nil if it failed
	when time.Time
}

// NewAhead returns an Ahead whose connections are given away within the time that
// they stay fresh.
func NewAhead(dial Dialer, fresh time.Duration) *Ahead {
	return &Ahead{dial: dial, fresh: fresh, conns: map[string][]*opening{}}
}

// Open opens a connection for Dial to give away, and returns when it is open or has
// failed.
func (a *Ahead) Open(ctx context.Context, network, addr string) {
	o := a.begin(addr)
	defer a.wait.Done()
	defer close(o.done)
	if conn, err := a.dial(ctx, network, addr); err == nil {
		o.conn, o.when = conn, time.Now()
	}
}

// begin makes it known that a connection is being opened.
func (a *Ahead) begin(addr string) *opening {
	o := &opening{done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wait.Add(1)
	a.conns[addr] = append(a.conns[addr], o)
	return o
}

// Dial gives away a connection that was opened ahead, waiting for one that is on
// its way, or opens one.
func (a *Ahead) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	for {
		o := a.first(addr)
		if o == nil {
			return a.dial(ctx, network, addr)
		}
		select {
		case <-o.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if !a.take(addr, o) {
			continue
		}
		if o.conn != nil && time.Since(o.when) < a.fresh {
			return o.conn, nil
		}
		o.close()
	}
}

// first returns the oldest connection to addr.
func (a *Ahead) first(addr string) *opening {
	a.mu.Lock()
	defer a.mu.Unlock()
	if list := a.conns[addr]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// take reports whether o is the caller's from now on.
func (a *Ahead) take(addr string, o *opening) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.Index(a.conns[addr], o)
	if i < 0 {
		return false
	}
	a.conns[addr] = slices.Delete(a.conns[addr], i, i+1)
	return true
}

// Close closes what nobody took. Whoever opens must have been told to stop.
func (a *Ahead) Close() {
	a.wait.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, list := range a.conns {
		for _, o := range list {
			o.close()
		}
	}
	clear(a.conns)
}

func (o *opening) close() {
	<-o.done
	if o.conn != nil {
		o.conn.Close()
	}
}
