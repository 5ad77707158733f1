package netup

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// Messages of DHCP (RFC 2131, RFC 2132).
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
)

// Options of DHCP: RFC 2132; optRoutes is RFC 3442's.
const (
	optPad       = 0
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optRequested = 50
	optTime      = 51
	optType      = 53
	optServer    = 54
	optWanted    = 55
	optText      = 56
	optMaxSize   = 57
	optRoutes    = 121
	optEnd       = 255
)

const (
	bootRequest = 1
	bootReply   = 2
	cookie      = 0x63825363
	headSize    = 240 // bytes: the fixed part and the cookie
	minMessage  = 300 // bytes, of BOOTP: relays drop less
)

// message is a DHCP message, as far as a client needs it.
type message struct {
	kind    byte
	id      uint32
	address netip.Addr // "your IP address"
	options map[byte][]byte
}

// bytes encodes a client's message. Its options are of at most 255 bytes.
func (m *message) bytes(mac net.HardwareAddr) []byte {
	b := make([]byte, headSize, minMessage)
	b[0], b[1], b[2] = bootRequest, 1, byte(len(mac)) // hardware type 1: Ethernet
	binary.BigEndian.PutUint32(b[4:], m.id)
	copy(b[28:44], mac)
	binary.BigEndian.PutUint32(b[headSize-4:], cookie)
	b = append(b, optType, 1, m.kind)
	b = append(b, optMaxSize, 2, 1500>>8, 1500&0xff)
	b = append(b, optWanted, 4, optMask, optRoutes, optRouter, optDNS) // RFC 3442: routes before the router
	for code, value := range m.options {
		b = append(append(b, code, byte(len(value))), value...)
	}
	b = append(b, optEnd)
	return append(b, make([]byte, max(0, minMessage-len(b)))...)
}

// parseMessage decodes a server's message to the card with that MAC address.
func parseMessage(b []byte, mac net.HardwareAddr) (*message, bool) {
	if len(b) < headSize || b[0] != bootReply || string(b[28:28+len(mac)]) != string(mac) || binary.BigEndian.Uint32(b[headSize-4:]) != cookie {
		return nil, false
	}
	m := &message{id: binary.BigEndian.Uint32(b[4:]), address: netip.AddrFrom4([4]byte(b[16:20])), options: map[byte][]byte{}}
	for b = b[headSize:]; len(b) > 0 && b[0] != optEnd; {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return nil, false
		}
		end := 2 + int(b[1])
		m.options[b[0]] = append(m.options[b[0]], b[2:end]...) // a long option comes in parts (RFC 3396)
		b = b[end:]
	}
	if t := m.options[optType]; len(t) == 1 {
		m.kind = t[0]
	}
	return m, true
}

// addrs are the addresses that an option lists, but for unspecified ones.
func (m *message) addrs(option byte) []netip.Addr {
	var all []netip.Addr
	for b := m.options[option]; len(b) >= 4; b = b[4:] {
		if a := netip.AddrFrom4([4]byte(b)); !a.IsUnspecified() {
			all = append(all, a)
		}
	}
	return all
}

// server is who sent the message, invalid if it does not say.
func (m *message) server() netip.Addr {
	if all := m.addrs(optServer); len(all) == 1 {
		return all[0]
	}
	return netip.Addr{}
}

// lease is what an offer or an acknowledgement gives.
func (m *message) lease() (Lease, error) {
	a := m.address
	if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return Lease{}, fmt.Errorf("the server offered address %v", a)
	}
	mask := net.IPMask(m.options[optMask])
	ones, bits := mask.Size()
	if bits != 32 || ones == 0 {
		return Lease{}, fmt.Errorf("the server offered %v with netmask %v", a, mask)
	}
	l := Lease{Address: netip.PrefixFrom(a, ones), DNS: m.addrs(optDNS), Server: m.server()}
	if t := m.options[optTime]; len(t) == 4 {
		l.Time = time.Duration(binary.BigEndian.Uint32(t)) * time.Second
	}
	if routes, ok := m.options[optRoutes]; ok {
		if l.Routes, ok = parseRoutes(routes); !ok {
			return Lease{}, fmt.Errorf("the server offered %v with routes %x, which are none", l.Address, routes)
		}
	} else if routers := m.addrs(optRouter); len(routers) > 0 {
		l.Routes = []Route{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), routers[0]}}
	}
	for _, r := range l.Routes {
		if r.Via.IsValid() && (!l.Router.IsValid() || r.To.Bits() == 0) {
			l.Router = r.Via
		}
	}
	if !l.Router.IsValid() {
		return Lease{}, fmt.Errorf("the server offered %v without a router", l.Address)
	}
	if l.DNS == nil {
		l.DNS = []netip.Addr{fallbackDNS}
	}
	return l, nil
}

// parseRoutes decodes RFC 3442's option: for each route the bits of its
// destination, as many bytes of it as those need, and the router.
func parseRoutes(b []byte) ([]Route, bool) {
	var all []Route
	for len(b) > 0 {
		bits := int(b[0])
		size := (bits + 7) / 8
		if bits > 32 || len(b) < 1+size+4 {
			return nil, false
		}
		var to [4]byte
		copy(to[:], b[1:1+size])
		r := Route{To: netip.PrefixFrom(netip.AddrFrom4(to), bits).Masked()}
		if via := netip.AddrFrom4([4]byte(b[1+size:])); !via.IsUnspecified() {
			r.Via = via
		}
		all = append(all, r)
		b = b[1+size+4:]
	}
	return all, len(all) > 0
}
