package ec2sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
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
	addr [2]netip.Prefix // of IPv4 and IPv6
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

// Instance is the id of the guest's instance.
func (g *Guest) Instance() string { return g.cloud.instanceOf(g.mac).id }

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
	if g.port, err = c.attach(g.receive, func() {}, nil); err != nil {
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
	packet := frame[header.EthernetMinimumSize:]
	var payload []byte
	six := false
	switch header.Ethernet(frame).Type() {
	case header.IPv4ProtocolNumber:
		if ip := header.IPv4(packet); ip.IsValid(len(ip)) {
			if p, dst := udpPayload(ip); p != nil && dst.Port() == dhcpClientPort {
				payload = p
			}
		}
	case header.IPv6ProtocolNumber:
		if ip := header.IPv6(packet); ip.IsValid(len(ip)) && ip.TransportProtocol() == header.UDPProtocolNumber {
			if u := header.UDP(ip.Payload()); len(u) >= header.UDPMinimumSize && u.DestinationPort() == dhcp6ClientPort {
				payload, six = u[header.UDPMinimumSize:], true
			}
		}
	}
	if payload == nil {
		inject(g.link, frame)
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn := range g.dhcp {
		if conn.six == six {
			conn.deliver(payload)
		}
	}
	return nil
}

// Configure gives the guest an address, in place of any it had of its family, and, if
// router is valid, a default route. A subnet of IPv6 has one router: Router6.
func (g *Guest) Configure(addr netip.Prefix, router netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	has := &g.addr[0]
	if addr.Addr().Is6() {
		has = &g.addr[1]
	}
	if has.IsValid() {
		if err := g.stack.RemoveAddress(nic, address(has.Addr())); err != nil {
			return fmt.Errorf("removing address %v: %v", *has, err)
		}
		*has = netip.Prefix{}
	}
	if err := addAddress(g.stack, addr); err != nil {
		return err
	}
	*has = addr
	setRoutes(g.stack, addr, router)
	return nil
}

// Router6 is the router of a subnet with IPv6.
func (c *Cloud) Router6() netip.Addr { return routerAddr6 }

// linkLocal is the address that every card has on its link.
func (g *Guest) linkLocal() netip.Addr {
	return netip.AddrFrom16(header.LinkLocalAddr(tcpip.LinkAddress(g.mac)).As16())
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
	g.mu.Lock()
	has := to.Addr().Is4() && g.addr[0].IsValid() || to.Addr().Is6() && g.addr[1].IsValid()
	g.mu.Unlock()
	if !has {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(to), Err: os.NewSyscallError("connect", errNoRoute)}
	}
	remote := fullAddress(to)
	switch network {
	case "tcp", "tcp4", "tcp6":
		return gonet.DialContextTCP(ctx, g.stack, remote, protocolOf(to.Addr()))
	case "udp", "udp4", "udp6":
		return gonet.DialUDP(g.stack, nil, &remote, protocolOf(to.Addr()))
	}
	return nil, net.UnknownNetworkError(network)
}

// ListenDHCP returns a connection for a DHCP client that has no address yet, and
// the card's MAC address: as nclient4.NewRawUDPConn does on Linux, it sends UDP from
// port 68 of 0.0.0.0 to the broadcast MAC address and receives what is sent to port 68.
func (g *Guest) ListenDHCP() (net.PacketConn, net.HardwareAddr, error) {
	return g.listenDHCP(false), g.mac, nil
}

// ListenDHCP6 is the same for DHCPv6: from port 546 of the link-local address to all
// servers on the link.
func (g *Guest) ListenDHCP6() (net.PacketConn, net.HardwareAddr, error) {
	return g.listenDHCP(true), g.mac, nil
}

func (g *Guest) listenDHCP(six bool) *dhcpConn {
	conn := &dhcpConn{
		guest:    g,
		six:      six,
		received: make(chan []byte, 16),
		closed:   make(chan struct{}),
		deadline: make(chan time.Time, 1),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dhcp[conn] = true
	return conn
}
