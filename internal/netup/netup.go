// Package netup brings the network up in the initramfs and undoes it: the
// primary interface, DHCP, default route and name servers. If a default route is
// there already, the network is somebody else's: it is used and left alone.
package netup

import (
	"context"
	"net"
	"net/netip"
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
}

// Up waits for an interface with a carrier and a lease until ctx ends.
func Up(ctx context.Context, o Options) (*Network, error) { panic("stub") }

// Dial resolves with the network's own name servers and connects.
func (n *Network) Dial(ctx context.Context, network, addr string) (net.Conn, error) { panic("stub") }

// Down removes route, address and link state that Up made.
func (n *Network) Down() error { panic("stub") }
