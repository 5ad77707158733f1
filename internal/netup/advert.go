package netup

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Types of ICMPv6 messages and of their options (RFC 4861; RFC 8106 for name servers).
const (
	routerSolicitation  = 133
	routerAdvertisement = 134

	optSourceLink = 1
	optPrefix     = 3
	optNameServer = 25
)

// maxHops is what the hop limit must be: packets of others than neighbours have less.
const maxHops = 255

var allRouters = netip.MustParseAddr("ff02::2")

// advert is what a router says of the link. Flags that tell whether there is DHCPv6
// are not looked at: it is asked meanwhile, which saves a round trip.
type advert struct {
	router   netip.Addr
	standard bool // it has a default route
	prefixes []prefix
	dns      []netip.Addr
}

// prefix is a range of addresses on the link.
type prefix struct {
	netip.Prefix
	onLink bool // its hosts are neighbours
	auto   bool // hosts make up their addresses in it (RFC 4862)
}

// parseAdvert decodes a router advertisement.
func parseAdvert(b []byte, from netip.Addr) (advert, bool) {
	const fixed = 16
	if len(b) < fixed || b[0] != routerAdvertisement || b[1] != 0 || !from.IsLinkLocalUnicast() {
		return advert{}, false
	}
	a := advert{router: from.WithZone(""), standard: binary.BigEndian.Uint16(b[6:]) > 0}
	for b = b[fixed:]; len(b) > 0; {
		if len(b) < 8 || b[1] == 0 || len(b) < 8*int(b[1]) {
			return advert{}, false
		}
		option := b[:8*int(b[1])]
		switch {
		case option[0] == optPrefix && len(option) == 32:
			p := netip.PrefixFrom(netip.AddrFrom16([16]byte(option[16:])), int(option[2])).Masked()
			valid := binary.BigEndian.Uint32(option[4:]) > 0
			if p.IsValid() && valid && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
				a.prefixes = append(a.prefixes, prefix{p, option[3]&0x80 != 0, option[3]&0x40 != 0 && p.Bits() == 64})
			}
		case option[0] == optNameServer && len(option) >= 24:
			for list := option[8:]; len(list) >= 16; list = list[16:] {
				a.dns = append(a.dns, netip.AddrFrom16([16]byte(list)))
			}
		}
		b = b[len(option):]
	}
	return a, true
}

// adverts asks for router advertisements on a card and calls got for each that comes,
// until ctx ends.
func adverts(ctx context.Context, index int, mac net.HardwareAddr, got func(advert)) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			for _, o := range []struct{ name, value int }{{unix.IPV6_MULTICAST_HOPS, maxHops}, {unix.IPV6_RECVHOPLIMIT, 1}} {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, o.name, o.value); err != nil {
					return err
				}
			}
			return bind(fd, index)
		})
	}}
	pc, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return fmt.Errorf("listening to routers: %w", err)
	}
	conn := pc.(*net.IPConn)
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	question := append([]byte{routerSolicitation, 0, 0, 0, 0, 0, 0, 0, optSourceLink, 1}, mac...)
	to := &net.IPAddr{IP: allRouters.AsSlice(), Zone: strconv.Itoa(index)}
	heard := false
	b, oob := make([]byte, 1500), make([]byte, 128)
	for wait := firstWait; ctx.Err() == nil; wait = min(2*wait, lastWait) {
		if !heard {
			_, _ = conn.WriteTo(question, to) // it is asked again
		}
		conn.SetReadDeadline(time.Now().Add(wait))
		if ctx.Err() != nil {
			break
		}
		for {
			n, nOOB, _, from, err := conn.ReadMsgIP(b, oob)
			if err != nil {
				break
			}
			ip, _ := netip.AddrFromSlice(from.IP)
			if a, ok := parseAdvert(b[:n], ip); ok && hops(oob[:nOOB]) == maxHops {
				heard = true
				got(a)
			}
		}
	}
	return nil
}

// hops returns the hop limit that came with a packet.
func hops(oob []byte) int {
	all, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range all {
		if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

// eui64 is the address in a prefix of 64 bits that a card makes of its MAC address
// (RFC 4291, appendix A).
func eui64(p netip.Prefix, mac net.HardwareAddr) netip.Addr {
	a := p.Addr().As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}
