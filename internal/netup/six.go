package netup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	errNoRouter  = errors.New("no router advertises itself")
	errNoAddress = errors.New("no address yet")
)

var linkLocal = netip.MustParsePrefix("fe80::/64")

// six takes a router and an address of IPv6, each as it comes, until ctx ends. On a
// kernel or a card without IPv6 it does nothing.
func (c *card) six(ctx context.Context) {
	off, err := os.ReadFile(filepath.Join("/proc/sys/net/ipv6/conf", c.called(), "disable_ipv6"))
	if err != nil || off[0] != '0' {
		c.debug("IPv6 is off")
		return
	}
	// The kernel's own comes later, and not in all of its modes.
	if err := c.addAddress(netip.PrefixFrom(eui64(linkLocal, c.mac), 64)); err != nil {
		c.log("IPv6: %v", err)
		return
	}
	s := &sixth{card: c}
	s.failed(errNoRouter)
	var wait sync.WaitGroup
	wait.Go(func() {
		err := adverts(ctx, c.index, c.mac, func(a advert) {
			c.debug("router %v: default route %v, prefixes %v, DNS %v", a.router, a.standard, a.prefixes, a.dns)
			s.advert(ctx, a)
		})
		if err != nil && ctx.Err() == nil {
			c.log("IPv6: %v", err)
		}
	})
	wait.Go(func() { s.leases(ctx) })
	wait.Wait()
}

// sixth is a card's IPv6 while it is put together.
type sixth struct {
	card *card

	mu     sync.Mutex
	addr   netip.Prefix
	router netip.Addr
	dns    []netip.Addr
}

// advert takes what a router says.
func (s *sixth) advert(ctx context.Context, a advert) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.card
	for _, p := range a.prefixes {
		if p.onLink {
			s.complain(c.addRoute(p.Prefix, netip.Addr{}))
		}
		if p.auto {
			s.address(netip.PrefixFrom(eui64(p.Prefix, c.mac), 128))
		}
	}
	if a.standard && !s.router.IsValid() {
		if err := c.addRoute(six.everywhere(), a.router); err != nil {
			s.complain(err)
		} else {
			s.router = a.router
			s.failed(errNoAddress)
		}
	}
	s.dns = append(s.dns, a.dns...)
	s.check(ctx)
}

// leases keeps a lease of DHCPv6. No time passes between it and the router's word: the
// flag there that says whether there is DHCPv6 is not waited for.
func (s *sixth) leases(ctx context.Context) {
	c := s.card
	for ctx.Err() == nil {
		begun := time.Now()
		conn, err := listenDHCP6(ctx, c.index)
		if err != nil {
			s.complain(err)
			return
		}
		l, err := RequestLease6(ctx, conn, c.index, c.mac, func(format string, args ...any) {
			c.debug(format, args...)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.router.IsValid() {
				s.failed(fmt.Errorf(format, args...))
			}
		})
		if err != nil {
			return // ctx has ended
		}
		c.debug("lease of %v by DHCPv6 after %v: %v, DNS %v", l.Time, time.Since(begun).Round(time.Millisecond), l.Address, l.DNS)
		s.mu.Lock()
		s.address(netip.PrefixFrom(l.Address, 128))
		s.dns = append(s.dns, l.DNS...)
		s.check(ctx)
		s.mu.Unlock()
		if l.Time == 0 {
			return
		}
		sleep(ctx, l.Time/2)
	}
}

// address takes an address; the first is the one that is reported. The caller holds mu.
func (s *sixth) address(p netip.Prefix) {
	if err := s.card.addAddress(p); err != nil {
		s.complain(err)
	} else if !s.addr.IsValid() {
		s.addr = p
	}
}

// check says so once there are an address and a router. The caller holds mu.
func (s *sixth) check(ctx context.Context) {
	if s.addr.IsValid() && s.router.IsValid() {
		s.card.set(ctx, six, s.addr, s.router, s.dns)
	}
}

// failed says why there is no IPv6 yet.
func (s *sixth) failed(err error) {
	s.card.mu.Lock()
	defer s.card.mu.Unlock()
	s.card.err6 = err
}

func (s *sixth) complain(err error) {
	if err != nil {
		s.card.log("%v", fmt.Errorf("IPv6: %w", err))
	}
}
