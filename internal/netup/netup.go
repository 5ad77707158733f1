// Package netup brings the network up in the initramfs and undoes it: the
// primary interface, DHCP (RFC 2131), default route and name servers. If a
// default route is there already, the network is somebody else's: it is used and
// left alone.
//
// IPv6 is switched off on an interface that Up raises, so that nothing but what
// was asked for is sent or configured; Down restores the setting.
package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"unlock/internal/hint"
)

// headStart is how long each interface is tried alone, in their order, before
// the next joins: the primary interface should win, but need not.
const headStart = 3 * time.Second

// fallbackDNS is the resolver that EC2 offers in every VPC.
var fallbackDNS = netip.MustParseAddr("169.254.169.253")

// Failures of Up that an operator can do something about.
var (
	ErrNoCard = hint.New("no network card: the kernel shows none, or its driver is missing",
		"add the driver of the network card (ena on Nitro) to the initramfs")
	ErrNoLink = hint.New("no link: nothing is at the other end of the network card",
		"check that the network interface is attached to the instance and in use (aws ec2 describe-network-interfaces)")
	ErrNoLease = hint.New("no lease", "check the subnet's DHCP options and that the network interface is attached")
)

// Options of Up.
type Options struct {
	// Log, if not nil, is told of retries.
	Log func(format string, args ...any)
}

// Network is a network that is up.
type Network struct {
	Interface string
	Address   netip.Prefix
	Router    netip.Addr
	DNS       []netip.Addr
	Found     bool // it was up already; Down does nothing

	undo []func() error // in the order in which it was done
}

// Up waits for an interface with a carrier and a lease until ctx ends.
func Up(ctx context.Context, o Options) (*Network, error) {
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	if n, err := existing(); err != nil || n != nil {
		return n, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &race{log: o.Log, won: make(chan *Network, 1)}
	links, err := watchLinks(ctx)
	if err != nil {
		return nil, err
	}
	started := map[int]bool{}
	for {
		select {
		case link, ok := <-links:
			if !ok {
				return nil, errors.New("watching network interfaces: the kernel ended the subscription")
			}
			if index := link.Attrs().Index; physical(link.Attrs().Name) && !started[index] {
				delay := time.Duration(len(started)) * headStart
				started[index] = true
				r.wait.Go(func() { r.run(ctx, link, delay) })
			}
		case n := <-r.won:
			cancel()
			r.wait.Wait()
			return n, nil
		case <-ctx.Done():
			r.wait.Wait()
			return nil, r.failure(len(started))
		}
	}
}

// existing returns the network whose default route is there already, or nil.
func existing() (*Network, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("reading routes: %w", err)
	}
	for _, r := range routes {
		if r.Gw == nil || r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil {
			return nil, fmt.Errorf("looking up the interface of the default route: %w", err)
		}
		router, _ := netip.AddrFromSlice(r.Gw)
		return &Network{Interface: link.Attrs().Name, Router: router.Unmap(), DNS: resolvConf("/etc/resolv.conf"), Found: true}, nil
	}
	return nil, nil
}

// resolvConf returns the name servers of a resolv.conf(5), or EC2's own.
func resolvConf(file string) []netip.Addr {
	var servers []netip.Addr
	data, _ := os.ReadFile(file) // a network without the file has EC2's resolver
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "nameserver" {
			if a, err := netip.ParseAddr(f[1]); err == nil {
				servers = append(servers, a)
			}
		}
	}
	if servers == nil {
		return []netip.Addr{fallbackDNS}
	}
	return servers
}

// physical tells a network card from lo, bridges, tunnels and the like.
func physical(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "device"))
	return err == nil
}

// watchLinks sends every interface that exists or appears until ctx ends.
func watchLinks(ctx context.Context) (<-chan netlink.Link, error) {
	updates := make(chan netlink.LinkUpdate)
	done := make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true})
	if err != nil {
		return nil, fmt.Errorf("watching network interfaces: %w", err)
	}
	links := make(chan netlink.Link)
	go func() { // ends with ctx; the subscription's own goroutine ends with done
		defer func() {
			close(links)
			close(done)
			for range updates { // let go of an update that was under way
			}
		}()
		for {
			select {
			case u, ok := <-updates:
				if !ok {
					return
				}
				if u.Header.Type != unix.RTM_NEWLINK {
					continue
				}
				select {
				case links <- u.Link:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return links, nil
}

// race tries interfaces side by side; the first that is up wins.
type race struct {
	log  func(string, ...any)
	won  chan *Network
	wait sync.WaitGroup

	mu   sync.Mutex
	last error
}

func (r *race) run(ctx context.Context, link netlink.Link, delay time.Duration) {
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return
	}
	n, err := configure(ctx, link, r.log)
	if err != nil {
		r.mu.Lock()
		r.last = err
		r.mu.Unlock()
		return
	}
	select {
	case r.won <- n:
	default: // another interface was quicker
		if err := n.Down(); err != nil {
			r.log("%v", err)
		}
	}
}

func (r *race) failure(tried int) error {
	if tried == 0 {
		return ErrNoCard
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		return errors.New("no network: time ran out")
	}
	return r.last
}

// configure raises one interface, takes a lease and applies it. What it did is
// undone if it fails.
func configure(ctx context.Context, link netlink.Link, log func(string, ...any)) (_ *Network, err error) {
	name := link.Attrs().Name
	n := &Network{Interface: name}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Down())
		}
	}()
	n.quietIPv6()
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, fmt.Errorf("bringing up %s: %w", name, err)
		}
		n.undo = append(n.undo, func() error { return netlink.LinkSetDown(link) })
	}
	if err := carrier(ctx, link); err != nil {
		return nil, err
	}
	lease, err := requestLease(ctx, name, link.Attrs().HardwareAddr, log)
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w: %w", name, ErrNoLease, err)
	}
	n.Address, n.Router, n.DNS = lease.Address, lease.Router, lease.DNS
	if err := n.apply(link); err != nil {
		return nil, err
	}
	return n, nil
}

// quietIPv6 keeps the kernel from router solicitations and link-local addresses.
func (n *Network) quietIPv6() {
	file := filepath.Join("/proc/sys/net/ipv6/conf", n.Interface, "disable_ipv6")
	old, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(old)) != "0" {
		return // no IPv6 here, or off already
	}
	if os.WriteFile(file, []byte("1"), 0) == nil {
		n.undo = append(n.undo, func() error { return os.WriteFile(file, []byte("0"), 0) })
	}
}

// carrier waits until the interface can send.
func carrier(ctx context.Context, link netlink.Link) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	links, err := watchLinks(ctx)
	if err != nil {
		return err
	}
	for l := range links {
		a := l.Attrs()
		if a.Index == link.Attrs().Index && a.RawFlags&unix.IFF_RUNNING != 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", link.Attrs().Name, ErrNoLink)
}

// apply puts address and default route on the interface.
func (n *Network) apply(link netlink.Link) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.Address.Addr().AsSlice(), Mask: net.CIDRMask(n.Address.Bits(), 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("adding %s to %s: %w", n.Address, n.Interface, err)
	}
	n.undo = append(n.undo, func() error { return netlink.AddrDel(link, addr) })
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: n.Router.AsSlice()}
	if !n.Address.Masked().Contains(n.Router) {
		route.SetFlag(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("adding the default route by %s: %w", n.Router, err)
	}
	n.undo = append(n.undo, func() error { return netlink.RouteDel(route) })
	return nil
}

// Down removes route, address and link state that Up made, in reverse order.
func (n *Network) Down() error {
	var errs []error
	for len(n.undo) > 0 {
		last := len(n.undo) - 1
		if err := n.undo[last](); err != nil {
			errs = append(errs, err)
		}
		n.undo = n.undo[:last]
	}
	if len(errs) > 0 {
		return fmt.Errorf("taking down %s: %w", n.Interface, errors.Join(errs...))
	}
	return nil
}

// Dial resolves with the network's own name servers and connects.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if network == "tcp" && !n.Found {
		network = "tcp4" // there is no IPv6; do not ask for addresses of it
	}
	d := net.Dialer{Timeout: 10 * time.Second, Resolver: &net.Resolver{PreferGo: true, Dial: n.dialDNS}}
	return d.DialContext(ctx, network, addr)
}

// dialDNS maps the resolver's default servers, 127.0.0.1 and ::1 in an image
// without resolv.conf, to ours.
func (n *Network) dialDNS(ctx context.Context, network, addr string) (net.Conn, error) {
	server := n.DNS[0]
	if host, err := netip.ParseAddrPort(addr); err == nil && len(n.DNS) > 1 && host.Addr().Is6() {
		server = n.DNS[1]
	}
	var d net.Dialer
	return d.DialContext(ctx, network, netip.AddrPortFrom(server, 53).String())
}
