package ec2sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// Guest stands for an instance's kernel. It ends with its Cloud.
type Guest struct {
	cloud *Cloud
	port  *port
	mac   net.HardwareAddr
	stack *stack.Stack
	link  *channel.Endpoint

	mu   sync.Mutex
	addr netip.Prefix
	dns  netip.Addr
	dhcp map[*dhcpConn]bool
}

// Guest is an in-process host on the simulated network, without DHCP's help: it
// has its address and its route.
func (c *Cloud) Guest() (*Guest, error) {
	g, err := c.BareGuest()
	if err != nil {
		return nil, err
	}
	return g, g.Configure(netip.PrefixFrom(c.instanceOf(g.mac).addr, subnet.Bits()), routerAddr)
}

// BareGuest is an in-process host without an address: only ListenDHCP works until Configure.
func (c *Cloud) BareGuest() (*Guest, error) {
	c.mu.Lock()
	n := len(c.instances)
	c.mu.Unlock()
	g := &Guest{
		cloud: c,
		mac:   net.HardwareAddr{0x0a, 0x00, 0x00, 0x00, byte(n >> 8), byte(n)},
		dns:   resolverAddr,
		dhcp:  map[*dhcpConn]bool{},
	}
	c.instanceOf(g.mac) // takes the MAC address
	var err error
	if g.stack, g.link, err = newStack(g.mac); err != nil {
		return nil, err
	}
	if g.port, err = c.attach(g.receive, func() {}); err != nil {
		g.stack.Destroy()
		return nil, err
	}
	c.onClose(func() {
		g.stack.Destroy()
		g.link.Close()
	})
	c.wg.Go(func() {
		for {
			frame := nextFrame(c.ctx, g.link)
			if frame == nil {
				return
			}
			c.receive(g.port, frame)
		}
	})
	return g, nil
}

// MAC is the address of the guest's network card.
func (g *Guest) MAC() net.HardwareAddr { return g.mac }

// receive takes a frame from the wire.
func (g *Guest) receive(frame []byte) error {
	if header.Ethernet(frame).Type() == header.IPv4ProtocolNumber {
		ip := header.IPv4(frame[header.EthernetMinimumSize:])
		if ip.IsValid(len(ip)) {
			if payload, dst := udpPayload(ip); payload != nil && dst.Port() == dhcpClientPort {
				g.mu.Lock()
				for conn := range g.dhcp {
					conn.deliver(payload)
				}
				g.mu.Unlock()
				return nil
			}
		}
	}
	inject(g.link, frame)
	return nil
}

// Configure gives the guest an address, in place of any it had, and, if router is
// valid, a default route.
func (g *Guest) Configure(addr netip.Prefix, router netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.addr.IsValid() {
		if err := g.stack.RemoveAddress(nic, address(g.addr.Addr())); err != nil {
			return fmt.Errorf("removing address %v: %v", g.addr, err)
		}
		g.addr = netip.Prefix{}
	}
	if err := addAddress(g.stack, addr); err != nil {
		return err
	}
	g.addr = addr
	setRoutes(g.stack, addr, router)
	return nil
}

// SetDNS changes the name server, which is that of the VPC at first.
func (g *Guest) SetDNS(server netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dns = server
}

// DialContext connects to addr, host:port, over tcp or udp. Names are resolved by
// Go's resolver asking the simulated DNS, A and AAAA at once, without search list
// and without cache: one round trip. (Its timeouts are those of this machine's
// resolv.conf, 5 s unless it says otherwise.) Addresses are tried in turn.
func (g *Guest) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	portNumber, err := net.LookupPort(network, service)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	ips := []netip.Addr{ip}
	if err != nil {
		g.mu.Lock()
		server := g.dns
		g.mu.Unlock()
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return g.dial(ctx, network, netip.AddrPortFrom(server, 53))
		}}
		if ips, err = r.LookupNetIP(ctx, "ip", host+"."); err != nil {
			return nil, err
		}
	}
	var conn net.Conn
	for _, ip := range ips {
		if conn, err = g.dial(ctx, network, netip.AddrPortFrom(ip.Unmap(), uint16(portNumber))); err == nil {
			return conn, nil
		}
	}
	return nil, fmt.Errorf("dialing %s: %w", addr, err)
}

func (g *Guest) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if !to.Addr().Is4() {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", errNoRoute)}
	}
	remote := fullAddress(to)
	switch network {
	case "tcp", "tcp4":
		return gonet.DialContextTCP(ctx, g.stack, remote, ipv4.ProtocolNumber)
	case "udp", "udp4":
		return gonet.DialUDP(g.stack, nil, &remote, ipv4.ProtocolNumber)
	}
	return nil, net.UnknownNetworkError(network)
}

// ListenDHCP returns a connection for a DHCP client that has no address yet, and
// the card's MAC address: as nclient4.NewRawUDPConn does on Linux, it sends UDP from
// port 68 of 0.0.0.0 to the broadcast MAC address and receives what is sent to port 68.
func (g *Guest) ListenDHCP() (net.PacketConn, net.HardwareAddr, error) {
	conn := &dhcpConn{
		guest:    g,
		received: make(chan []byte, 16),
		closed:   make(chan struct{}),
		deadline: make(chan time.Time, 1),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dhcp[conn] = true
	return conn, g.mac, nil
}
