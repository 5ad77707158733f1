package netup

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// findExisting returns the network that somebody has set up already, as a card without an
// index, or nil. It has the families of which there are addresses; whether it leads
// anywhere is to be tried.
func findExisting(n *Network) (*card, error) {
	addrs, err := allAddresses()
	if err != nil {
		return nil, fmt.Errorf("reading addresses: %w", err)
	}
	c := &card{n: n, link: make(chan struct{}, 1)}
	for _, a := range addrs {
		ip := a.net.Addr()
		link, err := net.InterfaceByIndex(a.index)
		if f := familyOf(ip); err == nil && link.Flags&net.FlagUp != 0 && ip.IsGlobalUnicast() && !c.side[f].ready {
			c.side[f] = side{ready: true, addr: a.net}
			if c.name == "" {
				c.name = link.Name
			}
		}
	}
	if c.name == "" {
		return nil, nil
	}
	routes, err := allRoutes()
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	for _, r := range routes {
		if !r.via.IsValid() || !r.to.Addr().IsUnspecified() {
			continue
		}
		if f := familyOf(r.via); c.side[f].ready && !c.side[f].router.IsValid() {
			c.side[f].router = r.via
			if link, err := net.InterfaceByIndex(r.index); err == nil {
				c.name = link.Name
			}
		}
	}
	c.step, c.err = stepLease, ErrNoIMDS
	c.name += " (configured already)"
	return c, nil
}

// held reports of which families a card has addresses that are somebody else's. Whoever
// gave it IPv4 will see to the rest.
func held(index int) (held [2]bool) {
	addrs, err := allAddresses()
	if err != nil {
		return held // it will be found again
	}
	for _, a := range addrs {
		if a.index == index && !a.net.Addr().IsLinkLocalUnicast() {
			held[familyOf(a.net.Addr())] = true
		}
	}
	return held
}

// try asks for IMDS through a network that is there already.
func (c *card) try(ctx context.Context) {
	var wait sync.WaitGroup
	for _, f := range c.families() {
		c.debug("%v, router %v", c.side[f].addr, c.side[f].router)
		wait.Go(func() { c.n.race.ready(ctx, c, f) })
	}
	wait.Wait()
}
