package ec2sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// mtu of a VPC, without the Ethernet header.
const mtu = 9001

const nic tcpip.NICID = 1

// newStack returns a stack of IPv4 and IPv6 with one Ethernet card. What it sends is read
// from the channel endpoint as whole frames.
func newStack(mac net.HardwareAddr) (*stack.Stack, *channel.Endpoint, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack := tcpip.TCPSACKEnabled(true)
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return nil, nil, fmt.Errorf("enabling TCP SACK: %v", err)
	}
	// The queue is long enough for several full TCP windows of small frames: a
	// full one would drop frames, which looks like loss.
	link := channel.New(8192, mtu+header.EthernetMinimumSize, tcpip.LinkAddress(mac))
	if err := s.CreateNIC(nic, ethernet.New(link)); err != nil {
		return nil, nil, fmt.Errorf("creating a network card: %v", err)
	}
	return s, link, nil
}

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

// protocolOf is the network protocol of an address.
func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: address(a.Addr()), Port: a.Port()}
}

func addAddress(s *stack.Stack, p netip.Prefix) error {
	err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          protocolOf(p.Addr()),
		AddressWithPrefix: address(p.Addr()).WithPrefix(),
	}, stack.AddressProperties{})
	if err != nil {
		return fmt.Errorf("adding address %v: %v", p, err)
	}
	return nil
}

// setRoutes replaces the routes of a family: local is on the link; router, if valid,
// has the rest.
func setRoutes(s *stack.Stack, local netip.Prefix, router netip.Addr) {
	local = local.Masked()
	family := local.Addr().BitLen()
	mask := net.CIDRMask(local.Bits(), family)
	onLink, err := tcpip.NewSubnet(address(local.Addr()), tcpip.MaskFromBytes(mask))
	if err != nil {
		panic(err) // a masked prefix always is a subnet
	}
	var routes []tcpip.Route
	for _, r := range s.GetRouteTable() {
		if r.Destination.ID().BitLen() != family {
			routes = append(routes, r)
		}
	}
	routes = append(routes, tcpip.Route{Destination: onLink, NIC: nic})
	everywhere := header.IPv4EmptySubnet
	if family != 32 {
		everywhere = header.IPv6EmptySubnet
	}
	if router.IsValid() {
		routes = append(routes, tcpip.Route{Destination: everywhere, Gateway: address(router), NIC: nic})
	}
	s.SetRouteTable(routes)
}

// inject gives a received frame to the stack behind link.
func inject(link *channel.Endpoint, frame []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	link.InjectInbound(0, pkt)
	pkt.DecRef()
}

// nextFrame waits for a frame that the stack behind link sends; nil when ctx ends.
func nextFrame(ctx context.Context, link *channel.Endpoint) []byte {
	pkt := link.ReadContext(ctx)
	if pkt == nil {
		return nil
	}
	defer pkt.DecRef()
	v := pkt.ToView()
	defer v.Release()
	return append([]byte(nil), v.AsSlice()...)
}

// listener is a TCP listener whose connections can be reset and have a chosen TTL.
type listener struct {
	ep     tcpip.Endpoint
	wq     waiter.Queue
	addr   *net.TCPAddr
	ttl    int
	closed chan struct{}
}

// listen listens on a. ttl is that of the packets of connections once they are
// open; 0: the default.
func listen(s *stack.Stack, a netip.AddrPort, ttl int) (*listener, error) {
	l := &listener{addr: net.TCPAddrFromAddrPort(a), ttl: ttl, closed: make(chan struct{})}
	ep, terr := s.NewEndpoint(tcp.ProtocolNumber, protocolOf(a.Addr()), &l.wq)
	if terr != nil {
		return nil, fmt.Errorf("listening on %v: %v", a, terr)
	}
	l.ep = ep
	if terr = ep.Bind(fullAddress(a)); terr == nil {
		terr = ep.Listen(1024)
	}
	if terr != nil {
		ep.Close()
		return nil, fmt.Errorf("listening on %v: %v", a, terr)
	}
	return l, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, terr := l.ep.Accept(nil)
		if _, again := terr.(*tcpip.ErrWouldBlock); again {
			select {
			case <-ready:
				continue
			case <-l.closed:
				return nil, net.ErrClosed
			}
		}
		if terr != nil {
			return nil, errors.New(terr.String())
		}
		if l.ttl != 0 {
			ep.SetSockOptInt(tcpip.IPv4TTLOption, l.ttl)
			ep.SetSockOptInt(tcpip.IPv6HopLimitOption, l.ttl)
		}
		return &tcpConn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep}, nil
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
		l.ep.Close()
	}
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// tcpConn is a connection of a listener.
type tcpConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
}

// SetLinger has the meaning of the method of *net.TCPConn; only 0 is understood:
// Close then resets the connection.
func (c *tcpConn) SetLinger(int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: true})
	return nil
}
