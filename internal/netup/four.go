package netup

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"
)

// four keeps a lease of DHCP until ctx ends. A lease is taken anew at half its time;
// what servers give to a card that they know is what it has.
func (c *card) four(ctx context.Context) {
	for ctx.Err() == nil {
		begun := time.Now()
		lease, err := c.lease(ctx)
		if err == nil {
			c.debug("lease of %v from %v after %v: %v, routes %v, DNS %v", lease.Time, lease.Server, time.Since(begun).Round(time.Millisecond),
				lease.Address, lease.Routes, lease.DNS)
			err = c.apply(ctx, lease)
		}
		if err != nil && ctx.Err() == nil {
			c.log("DHCP: %v", err)
		}
		wait := lastWait
		if err != nil {
			c.came(stepLink, fmt.Errorf("DHCP: %w: %w", ErrNoLease, err))
		} else if wait = lease.Time / 2; wait == 0 {
			<-ctx.Done()
		}
		sleep(ctx, wait)
	}
}

func (c *card) lease(ctx context.Context) (Lease, error) {
	conn, err := newPacketConn(c.index, c.mac)
	if err != nil {
		return Lease{}, err
	}
	return RequestLease(ctx, conn, c.mac, func(format string, args ...any) {
		c.came(stepLink, fmt.Errorf("%w: "+format, append([]any{ErrNoLease}, args...)...))
		c.log(format, args...)
	})
}

// apply puts a lease's address and routes on the card, if they are not there.
func (c *card) apply(ctx context.Context, l Lease) error {
	c.mu.Lock()
	same := c.side[four].ready && c.side[four].addr == l.Address && c.side[four].router == l.Router
	c.mu.Unlock()
	if same {
		return nil
	}
	if err := c.drop(four); err != nil {
		return err
	}
	if err := c.addAddress(l.Address); err != nil {
		return err
	}
	routes := slices.Clone(l.Routes)
	sort.SliceStable(routes, func(i, j int) bool { return routes[i].To.Bits() > routes[j].To.Bits() })
	for _, r := range routes {
		if err := c.addRoute(r.To, r.Via); err != nil {
			return err
		}
	}
	c.set(ctx, four, l.Address, l.Router, l.DNS)
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
