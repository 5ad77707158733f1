package ec2sim

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	dhcp6ServerPort = 547
	dhcp6ClientPort = 546

	lease6Time = 450 * time.Second // as EC2's
)

var allNodes = netip.MustParseAddr("ff02::1")

// ipv6 answers ip if it is a router solicitation or a DHCPv6 message, and reports whether
// it was.
func (c *Cloud) ipv6(p *port, mac net.HardwareAddr, ip header.IPv6) bool {
	from := netip.AddrFrom16(ip.SourceAddress().As16())
	payload := ip.Payload()
	switch ip.TransportProtocol() {
	case header.ICMPv6ProtocolNumber:
		if len(payload) < header.ICMPv6MinimumSize || header.ICMPv6(payload).Type() != header.ICMPv6RouterSolicit {
			return false
		}
		c.record(Request{Time: time.Now(), Service: "router", Operation: "SOLICIT", Host: from.String()})
		if !c.faultAt(p, "ra-silent") {
			c.transmit(p, routerAdvertisement(), 0)
		}
		return true
	case header.UDPProtocolNumber:
		u := header.UDP(payload)
		if len(u) < header.UDPMinimumSize || u.DestinationPort() != dhcp6ServerPort {
			return false
		}
		c.dhcp6(p, mac, from, u[header.UDPMinimumSize:])
		return true
	}
	return false
}

// routerAdvertisement is a frame to all machines, as EC2's router says it: hosts have their
// addresses from DHCPv6 (RFC 4861, section 4.2).
func routerAdvertisement() []byte {
	const managed = 0x80
	b := []byte{byte(header.ICMPv6RouterAdvert), 0, 0, 0, 255, managed}
	b = binary.BigEndian.AppendUint16(b, 1800)   // seconds for which the router is the default one
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)        // reachable and retransmission times: unspecified
	b = append(append(b, 1, 1), routerMAC...)    // its link-layer address
	b = append(b, 3, 4, byte(subnet6.Bits()), 0) // the prefix: neither on the link nor for addresses that hosts make up
	b = binary.BigEndian.AppendUint32(b, 86400)
	b = binary.BigEndian.AppendUint32(b, 86400)
	b = append(append(b, 0, 0, 0, 0), subnet6.Addr().AsSlice()...)
	icmp := header.ICMPv6(b)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: address(routerAddr6), Dst: address(allNodes)}))
	return frame6(routerMAC, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, routerAddr6, allNodes, uint8(header.ICMPv6ProtocolNumber), b)
}

// dhcp6 answers a DHCPv6 client (RFC 8415), which always gets the address of its
// network card.
func (c *Cloud) dhcp6(p *port, mac net.HardwareAddr, from netip.Addr, payload []byte) {
	m, err := dhcpv6.MessageFromBytes(payload)
	if err != nil {
		return
	}
	c.record(Request{Time: time.Now(), Service: "dhcp6", Operation: m.Type().String(), Host: from.String()})
	if c.faultAt(p, "dhcp6-silent") {
		return
	}
	ask := m.Options.OneIANA()
	if ask == nil {
		return
	}
	mods := []dhcpv6.Modifier{
		dhcpv6.WithServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: routerMAC}),
		dhcpv6.WithDNS(net.IP(localDNSAddr6.AsSlice())),
		dhcpv6.WithOption(&dhcpv6.OptIANA{IaId: ask.IaId, T1: lease6Time / 2, T2: lease6Time * 4 / 5, Options: dhcpv6.IdentityOptions{Options: dhcpv6.Options{
			&dhcpv6.OptIAAddress{IPv6Addr: net.IP(c.instanceOf(mac).addr6.AsSlice()), PreferredLifetime: 140 * time.Second, ValidLifetime: lease6Time},
		}}}),
	}
	var answer *dhcpv6.Message
	switch m.Type() {
	case dhcpv6.MessageTypeSolicit:
		answer, err = dhcpv6.NewAdvertiseFromSolicit(m, mods...)
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		answer, err = dhcpv6.NewReplyFromMessage(m, mods...)
	default:
		return
	}
	if err != nil {
		return
	}
	c.transmit(p, udpFrame6(routerMAC, mac, netip.AddrPortFrom(routerAddr6, dhcp6ServerPort), netip.AddrPortFrom(from, dhcp6ClientPort), answer.ToBytes()), 0)
}

// udpFrame6 returns an Ethernet frame with one UDP datagram over IPv6.
func udpFrame6(srcMAC, dstMAC net.HardwareAddr, src, dst netip.AddrPort, payload []byte) []byte {
	u := header.UDP(make([]byte, header.UDPMinimumSize, header.UDPMinimumSize+len(payload)))
	u.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(cap(u))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, address(src.Addr()), address(dst.Addr()), uint16(cap(u)))
	u.SetChecksum(^u.CalculateChecksum(checksum.Checksum(payload, sum)))
	return frame6(srcMAC, dstMAC, src.Addr(), dst.Addr(), uint8(header.UDPProtocolNumber), append(u, payload...))
}

// frame6 returns an Ethernet frame with a packet of IPv6.
func frame6(srcMAC, dstMAC net.HardwareAddr, src, dst netip.Addr, protocol uint8, payload []byte) []byte {
	const own = 255 // hops: neighbours alone are heard
	frame := append(append([]byte(nil), dstMAC...), srcMAC...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(payload)))
	frame = append(frame, protocol, own)
	frame = append(append(frame, src.AsSlice()...), dst.AsSlice()...)
	return append(frame, payload...)
}
