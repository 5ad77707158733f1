package ec2sim

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68

	leaseTime = time.Hour // as EC2's
)

// secondDHCPAddr is the server of the fault dhcp-two, wrongRouterAddr the router of dhcp-routes.
var (
	secondDHCPAddr  = netip.MustParseAddr("172.31.0.3")
	wrongRouterAddr = netip.MustParseAddr("172.31.0.66")
)

// dhcp answers ip if it is a DHCP message, and reports whether it was. The server
// sits on the wire and not on the stack, because its clients have no address.
func (c *Cloud) dhcp(p *port, ip header.IPv4) bool {
	payload, dst := udpPayload(ip)
	if payload == nil || dst.Port() != dhcpServerPort {
		return false
	}
	req, err := dhcpv4.FromBytes(payload)
	if err != nil || req.OpCode != dhcpv4.OpcodeBootRequest {
		return true
	}
	c.record(Request{Time: time.Now(), Service: "dhcp", Operation: req.MessageType().String(), Host: dst.Addr().String()})
	if c.faultAt(p, "dhcp-silent") {
		return true
	}
	servers := []netip.Addr{routerAddr}
	if c.fault("dhcp-two") {
		servers = []netip.Addr{secondDHCPAddr, routerAddr}
	}
	slow, _ := c.faultDuration("dhcp-slow")
	for _, server := range servers {
		if reply := c.dhcpReply(req, net.IP(server.AsSlice())); reply != nil {
			frame := dhcpFrame(server, req, reply)
			if c.fault("dhcp-broadcast") {
				copy(frame, header.EthernetBroadcastAddress)
			}
			c.transmit(p, frame, slow)
		}
	}
	return true
}

// dhcpFrame addresses the answer to req as RFC 2131, section 4.1, has it.
func dhcpFrame(server netip.Addr, req, reply *dhcpv4.DHCPv4) []byte {
	mac, to := req.ClientHWAddr, reply.YourIPAddr
	if to.IsUnspecified() {
		to = reply.ClientIPAddr
	}
	if req.IsBroadcast() || to.IsUnspecified() || reply.MessageType() == dhcpv4.MessageTypeNak {
		mac, to = net.HardwareAddr(header.EthernetBroadcastAddress), net.IPv4bcast
	}
	toAddr, _ := netip.AddrFromSlice(to.To4())
	return udpFrame(routerMAC, mac,
		netip.AddrPortFrom(server, dhcpServerPort), netip.AddrPortFrom(toAddr, dhcpClientPort),
		reply.ToBytes())
}

// dhcpReply returns a server's answer to req (RFC 2131, section 4.3), nil for none.
// Each machine always gets the same address.
func (c *Cloud) dhcpReply(req *dhcpv4.DHCPv4, server net.IP) *dhcpv4.DHCPv4 {
	inst := c.instanceOf(req.ClientHWAddr)
	addr := net.IP(inst.addr.AsSlice())
	base := []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server))}
	lease := append(base,
		dhcpv4.WithYourIP(addr),
		dhcpv4.WithServerIP(server),
		dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(c.leaseTime())))
	var kind dhcpv4.MessageType
	mods := lease
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		if id := req.ServerIdentifier(); id != nil && !id.Equal(server) {
			return nil // the client chose another server
		}
		wanted := req.RequestedIPAddress()
		if wanted == nil {
			wanted = req.ClientIPAddr
		}
		kind = dhcpv4.MessageTypeAck
		if !wanted.Equal(addr) || c.fault("dhcp-nak") {
			kind, mods = dhcpv4.MessageTypeNak, base
		}
	case dhcpv4.MessageTypeInform:
		kind, mods = dhcpv4.MessageTypeAck, base
	default: // RELEASE and DECLINE have no answer
		return nil
	}
	if kind != dhcpv4.MessageTypeNak {
		mods = append(mods, c.dhcpOptions(inst)...)
	}
	reply, err := dhcpv4.NewReplyFromRequest(req, append(mods, dhcpv4.WithMessageType(kind))...)
	if err != nil {
		return nil
	}
	reply.ClientIPAddr = req.ClientIPAddr
	return reply
}

// dhcpOptions is what a VPC with default DHCP options tells.
func (c *Cloud) dhcpOptions(inst *instance) []dhcpv4.Modifier {
	mask := net.CIDRMask(subnet.Bits(), 32)
	if c.fault("dhcp-host") {
		mask = net.CIDRMask(32, 32)
	}
	broadcast := net.IP(bytes.Clone(subnet.Addr().AsSlice()))
	for i := range broadcast {
		broadcast[i] |= ^mask[i]
	}
	mods := []dhcpv4.Modifier{
		dhcpv4.WithNetmask(mask),
		dhcpv4.WithOption(dhcpv4.OptBroadcastAddress(broadcast)),
		dhcpv4.WithOption(dhcpv4.OptHostName(inst.hostName())),
		dhcpv4.WithOption(dhcpv4.OptDomainName(c.domain())),
		dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{mtu >> 8, mtu & 0xff}),
	}
	router, routes := routerAddr, c.fault("dhcp-routes")
	if routes {
		router = wrongRouterAddr
	}
	only := c.fault("dhcp-routes-only")
	if routes || only {
		everywhere := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
		mods = append(mods, dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: everywhere, Router: net.IP(routerAddr.AsSlice())})))
	}
	if !only && !c.fault("dhcp-no-router") {
		mods = append(mods, dhcpv4.WithRouter(net.IP(router.AsSlice())))
	}
	if !c.fault("dhcp-no-dns") {
		var servers []net.IP
		for _, a := range append(slices.Clone(silentAddrs[:min(c.faultNumber("dns-dead"), len(silentAddrs))]), resolverAddr) {
			servers = append(servers, net.IP(a.AsSlice()))
		}
		mods = append(mods, dhcpv4.WithDNS(servers...))
	}
	return mods
}

func (c *Cloud) leaseTime() time.Duration {
	if d, set := c.faultDuration("dhcp-time"); set {
		return d
	}
	return leaseTime
}

// udpPayload returns the payload and the destination of a UDP datagram, nil if ip is
// something else or a fragment.
func udpPayload(ip header.IPv4) ([]byte, netip.AddrPort) {
	if ip.Protocol() != uint8(header.UDPProtocolNumber) || ip.More() || ip.FragmentOffset() != 0 {
		return nil, netip.AddrPort{}
	}
	u := header.UDP(ip.Payload())
	if len(u) < header.UDPMinimumSize || int(u.Length()) > len(u) || u.Length() < header.UDPMinimumSize {
		return nil, netip.AddrPort{}
	}
	dst := netip.AddrPortFrom(netip.AddrFrom4(ip.DestinationAddress().As4()), u.DestinationPort())
	return u[header.UDPMinimumSize:u.Length()], dst
}

// udpFrame returns an Ethernet frame with one UDP datagram.
func udpFrame(srcMAC, dstMAC net.HardwareAddr, src, dst netip.AddrPort, payload []byte) []byte {
	const ethSize, ipSize = header.EthernetMinimumSize, header.IPv4MinimumSize
	frame := make([]byte, ethSize+ipSize+header.UDPMinimumSize+len(payload))
	copy(frame, dstMAC)
	copy(frame[6:], srcMAC)
	frame[12], frame[13] = 0x08, 0x00

	ip := header.IPv4(frame[ethSize:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(len(ip)),
		TTL:         64,
		Protocol:    uint8(header.UDPProtocolNumber),
		SrcAddr:     address(src.Addr()),
		DstAddr:     address(dst.Addr()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())

	u := header.UDP(ip[ipSize:])
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(len(u))})
	copy(u[header.UDPMinimumSize:], payload)
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, address(src.Addr()), address(dst.Addr()), uint16(len(u)))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, sum)))
	return frame
}
