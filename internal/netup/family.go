package netup

import "net/netip"

// family is IPv4 or IPv6.
type family int

const (
	four family = iota
	six
)

func familyOf(a netip.Addr) family {
	if a.Is4() || a.Is4In6() {
		return four
	}
	return six
}

// network is the family's name for a lookup.
func (f family) network() string { return [...]string{"ip4", "ip6"}[f] }

func (f family) String() string { return [...]string{"IPv4", "IPv6"}[f] }

// imds is the address of the instance metadata service.
func (f family) imds() netip.Addr { return [...]netip.Addr{IMDS4, IMDS6}[f] }

// everywhere is the destination of the default route.
func (f family) everywhere() netip.Prefix {
	return [...]netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}[f]
}
