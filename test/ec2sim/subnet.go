package ec2sim

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// The subnet's IPv6, which cards see whose subnet has the fault ipv6. All machines and
// all subnets share one range of addresses and one router.
var (
	subnet6       = netip.MustParsePrefix("2001:db8:1::/64")
	routerAddr6   = netip.MustParseAddr("fe80::8ff:acff:fe1f:1") // of routerMAC
	localDNSAddr6 = netip.MustParseAddr("fd00:ec2::253")
	imdsAddr6     = netip.MustParseAddr("fd00:ec2::254")
	firstAddr6    = netip.MustParseAddr("2001:db8:1::5:10")
)

// silentAddrs are name servers that never answer.
var silentAddrs = []netip.Addr{netip.MustParseAddr("172.31.0.91"), netip.MustParseAddr("172.31.0.92"), netip.MustParseAddr("172.31.0.93")}

// public6 is the address of a service over IPv6, nat64 that of its IPv4 address for those
// who have IPv6 alone (RFC 6052), private that of an interface endpoint in the subnet.
func public6(a netip.Addr) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0, 2, 15: a.As4()[3]})
}

func nat64(a netip.Addr) netip.Addr {
	b := [16]byte{0x00, 0x64, 0xff, 0x9b}
	copy(b[12:], a.AsSlice())
	return netip.AddrFrom16(b)
}

func private(a netip.Addr) netip.Addr {
	return netip.AddrFrom4([4]byte{172, 31, 1, a.As4()[3]})
}

// Topology is a subnet by name: some faults together.
type Topology struct {
	Name, Help string
	Faults     []string
}

var topologies = []Topology{
	{"ipv6-only", "a subnet without IPv4", []string{"ipv6", "no-ipv4"}},
	{"dual-stack", "a subnet with IPv4 and IPv6", []string{"ipv6"}},
	{"dual-stack-as-launched", "the same, where IMDS answers over IPv4 only, as it does by default", []string{"ipv6", "imds6-off"}},
	{"dual-stack-ipv4-broken", "the same, where IPv4 leads nowhere in spite of its lease", []string{"ipv6", "ipv4-broken"}},
	{"dual-stack-egress", "the same, where the way out of the VPC has IPv6 only", []string{"ipv6", "no-endpoints"}},
	{"nat64", "a subnet without IPv4, with DNS64 and NAT64", []string{"ipv6", "no-ipv4", "dns64"}},
	{"isolated", "a subnet that leads to DHCP and DNS only", []string{"no-imds", "no-endpoints"}},
	{"private", "a subnet without a way out: endpoints of the VPC and a proxy are in it", []string{"no-endpoints", "vpc-endpoints"}},
}

// Topologies lists the subnets that have a name, which SetFaults and Card take, too.
func Topologies() []Topology { return slices.Clone(topologies) }

// Card returns what serves a network card like Plug, in a subnet with these faults
// beside those of the Cloud.
func (c *Cloud) Card(faults ...string) (func(net.Conn) error, error) {
	parsed, err := parseFaults(faults)
	if err != nil {
		return nil, err
	}
	return func(conn net.Conn) error { return c.plug(conn, maps.Clone(parsed)) }, nil
}

// faultAt reports whether a fault strikes at a port: the Cloud's or its own.
func (c *Cloud) faultAt(p *port, name string) bool {
	if c.fault(name) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := p.faults[name]
	if f == nil || !f.strikes() {
		return false
	}
	c.struck[name]++
	return true
}

// carries reports whether a frame passes between a machine and the subnet.
func (c *Cloud) carries(p *port, frame []byte) bool {
	payload := frame[header.EthernetMinimumSize:]
	var size int
	var ends [2]netip.Addr
	switch eth := header.Ethernet(frame); eth.Type() {
	case header.ARPProtocolNumber:
		return !c.faultAt(p, "no-ipv4")
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(payload)
		if !ip.IsValid(len(ip)) || c.faultAt(p, "no-ipv4") {
			return false
		}
		_, dst := udpPayload(ip)
		if dhcp := dst.Port() == dhcpServerPort || dst.Port() == dhcpClientPort; !dhcp && c.faultAt(p, "ipv4-broken") {
			return false
		}
		size = int(ip.TotalLength())
		ends = [2]netip.Addr{netip.AddrFrom4(ip.SourceAddress().As4()), netip.AddrFrom4(ip.DestinationAddress().As4())}
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(payload)
		if !ip.IsValid(len(ip)) || !c.faultAt(p, "ipv6") {
			return false
		}
		size = header.IPv6MinimumSize + int(ip.PayloadLength())
		ends = [2]netip.Addr{netip.AddrFrom16(ip.SourceAddress().As16()), netip.AddrFrom16(ip.DestinationAddress().As16())}
	}
	const usual = 1500
	if size > usual && c.faultAt(p, "mtu-1500") {
		return false
	}
	for _, a := range ends {
		switch {
		case slices.Contains(silentAddrs, a),
			(a == imdsAddr || a == imdsAddr6) && c.faultAt(p, "no-imds"),
			a == imdsAddr6 && c.faultAt(p, "imds6-off"),
			isService(a) && c.faultAt(p, "no-endpoints"):
			return false
		}
	}
	return true
}

// isService reports whether a is a public address of a service over IPv4.
func isService(a netip.Addr) bool {
	for _, s := range serviceAddrs {
		if a == s || a == nat64(s) {
			return true
		}
	}
	return false
}
