package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// Times of the resolver. A server that is silent for a turn is not waited for alone: the
// next is asked as well, and all again when all have been.
const (
	turn     = 400 * time.Millisecond
	rounds   = 4
	patience = 3 * time.Second // for one server's answer
)

// Resolvers that EC2 offers in every VPC, the second where IPv6 is.
var (
	fallbackDNS  = netip.MustParseAddr("169.254.169.253")
	fallbackDNS6 = netip.MustParseAddr("fd00:ec2::253")
)

// resolvConf returns the name servers of a resolv.conf(5).
func resolvConf(file string) []netip.Addr {
	var servers []netip.Addr
	data, _ := os.ReadFile(file) // an image without the file names none
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				servers = append(servers, a)
			}
		}
	}
	return servers
}

// servers returns whom to ask through this card, in this order: who answered last, those
// of the lease, those of the image, EC2's own. Only what its addresses can reach.
func (c *card) servers() []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []netip.Addr{c.answered}
	for f := range c.side {
		all = append(all, c.side[f].dns...)
	}
	all = append(append(all, resolvConf(resolvConfFile)...), fallbackDNS, fallbackDNS6)
	var chosen []netip.Addr
	for _, a := range all {
		if a.IsValid() && c.side[familyOf(a)].ready && !slices.Contains(chosen, a) {
			chosen = append(chosen, a)
		}
	}
	return chosen
}

const resolvConfFile = "/etc/resolv.conf"

// lookup returns the addresses of a name in one family: "ip4" or "ip6". The first
// server that knows any is believed.
func (c *card) lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		addrs []netip.Addr
		err   error
	}
	servers := c.servers()
	if len(servers) == 0 {
		return nil, errNoWay
	}
	answers := make(chan answer, rounds*len(servers))
	asked, answered := 0, 0
	ask := func() {
		server, again := servers[asked%len(servers)], asked >= len(servers)
		asked++
		go func() {
			begun := time.Now()
			addrs, err := c.ask(ctx, server, network, host)
			if ctx.Err() == nil && !(again && err != nil) {
				c.debug("DNS server %v: %s (%s): %s after %v", server, host, network, outcome(addrs, err), time.Since(begun).Round(time.Millisecond))
			}
			if err == nil {
				c.mu.Lock()
				c.answered = server
				c.mu.Unlock()
			}
			answers <- answer{addrs, err}
		}()
	}
	ask()
	next := time.NewTicker(turn)
	defer next.Stop()
	var last error
	for {
		select {
		case a := <-answers:
			if answered++; a.err == nil {
				return a.addrs, nil
			}
			if last == nil || knows(a.err) {
				last = a.err // that there is no such name says more than silence
			}
			if asked < len(servers) {
				ask()
			} else if answered == asked {
				return nil, last
			}
		case <-next.C:
			if asked < rounds*len(servers) {
				ask()
			}
		case <-ctx.Done():
			if last == nil {
				last = &net.DNSError{Err: "no answer", Name: host, Server: fmt.Sprint(servers[:min(asked, len(servers))]), IsTimeout: true}
			}
			return nil, last
		}
	}
}

func outcome(addrs []netip.Addr, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(addrs)
}

// knows reports whether err is a server's word that there is no such name.
func knows(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// ask asks one server. It is the standard library's resolver, which is linked anyway
// and repeats truncated answers over TCP. The name is taken as it is, without the
// image's search list.
func (c *card) ask(ctx context.Context, server netip.Addr, network, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer(c.index).DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
	}}
	addrs, err := r.LookupNetIP(ctx, network, strings.TrimSuffix(host, ".")+".")
	var dns *net.DNSError
	if errors.As(err, &dns) {
		dns.Name, dns.Server = host, server.String() // not of the image's resolv.conf
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}
