package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

const (
	dialTime = 10 * time.Second       // for a connection, its name included
	handicap = 250 * time.Millisecond // between addresses (RFC 8305)
	alone    = 2 * time.Second        // for the first card, before others are raised to help
)

var errNoWay = errors.New("no address that reaches it")

// Dial connects to host:port, resolving host. Where the card that reaches IMDS does not
// lead there, the other cards are tried, too.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	type result struct {
		conn net.Conn
		card *card
		err  error
	}
	results, done := make(chan result), make(chan struct{})
	defer close(done)
	tried, open := map[*card]bool{}, 0
	try := func(c *card) {
		tried[c] = true
		open++
		go func() {
			conn, err := c.dial(ctx, network, addr)
			if err != nil && c.called() != "" {
				err = fmt.Errorf("%s: %w", c.called(), err)
			}
			select {
			case results <- result{conn, c, err}:
			case <-done:
				if conn != nil {
					conn.Close()
				}
			}
		}()
	}
	cards, more := n.through()
	late := time.After(alone)
	var first error
	var help <-chan time.Time // until then, other cards may come to help
	if len(cards) > 0 {
		try(cards[0])
	} else {
		help = time.After(alone) // the card is just being raised again
	}
	for {
		wide, grown := false, false
		select {
		case r := <-results:
			if r.err == nil {
				n.prefer(r.card, addr)
				return r.conn, nil
			}
			if open--; first == nil {
				first = r.err
			}
			wide = late != nil
		case <-late:
			wide = true
		case <-help:
			help = nil
		case <-more:
			cards, more = n.through()
			grown = true
		case <-ctx.Done():
			for ; first == nil && open > 0; open-- { // those under way end, too, and say more
				r := <-results
				if r.err == nil {
					return r.conn, nil
				}
				first = r.err
			}
			if first == nil {
				first = context.Cause(ctx)
			}
			return nil, first
		}
		if wide {
			late = nil
			if n.help(addr, first) {
				help = time.After(alone)
			}
		}
		for _, c := range cards {
			if (grown || late == nil) && !tried[c] {
				try(c)
			}
		}
		if open == 0 && help == nil {
			if first == nil {
				first = errNoWay
			}
			return nil, first
		}
	}
}

// dial connects through one card: over IPv4 and IPv6, whichever answers first.
func (c *card) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := net.LookupPort(network, port)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type names struct {
		addrs []netip.Addr
		err   error
	}
	type result struct {
		conn net.Conn
		err  error
	}
	found, results := make(chan names, 2), make(chan result) // there is room for both families
	asking, open := 0, 0
	if ip, err := netip.ParseAddr(host); err == nil {
		asking++
		go func() { found <- names{addrs: []netip.Addr{ip}} }()
	} else {
		for _, f := range c.families() {
			asking++
			go func() {
				addrs, err := c.lookup(ctx, f.network(), host)
				found <- names{addrs, err}
			}()
		}
	}
	var waiting []netip.Addr
	var first error
	next := func() {
		to := netip.AddrPortFrom(waiting[0], uint16(number))
		waiting = waiting[1:]
		open++
		go func() {
			begun := time.Now()
			conn, err := dialer(c.index).DialContext(ctx, strings.TrimRight(network, "46"), to.String())
			if err == nil {
				c.debug("%s: connected to %v after %v", host, to, time.Since(begun).Round(time.Millisecond))
			} else if ctx.Err() == nil {
				c.debug("%s: %v", host, err)
			}
			select {
			case results <- result{conn, err}:
			case <-ctx.Done():
				if conn != nil {
					conn.Close()
				}
			}
		}()
	}
	timer := time.NewTimer(handicap)
	defer timer.Stop()
	for asking > 0 || open > 0 || len(waiting) > 0 {
		if len(waiting) > 0 && open == 0 {
			next()
			timer.Reset(handicap)
		}
		select {
		case a := <-found:
			asking--
			waiting = append(waiting, a.addrs...)
			if first == nil {
				first = a.err
			}
		case r := <-results:
			open--
			if r.err == nil {
				return r.conn, nil
			}
			if first == nil || knows(first) {
				first = r.err
			}
		case <-timer.C:
			if len(waiting) > 0 {
				next()
			}
			timer.Reset(handicap)
		case <-ctx.Done():
			// Lookups have ended, too, and say more.
			for first == nil && asking > 0 {
				asking--
				first = (<-found).err
			}
			if first == nil {
				first = context.Cause(ctx)
			}
			return nil, first
		}
	}
	if first == nil {
		first = errNoWay
	}
	return nil, first
}
