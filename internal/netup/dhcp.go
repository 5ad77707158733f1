package netup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
)

// Times of the DHCP client: an answer is awaited this long, at first and at
// most; each failure doubles it.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 32 * time.Second
)

// Lease is what a DHCP server gave.
type Lease struct {
	Address netip.Prefix
	Router  netip.Addr
	DNS     []netip.Addr // EC2's own resolver if the server named none
}

// requestLease asks on a raw socket, as the interface has no address yet.
func requestLease(ctx context.Context, name string, mac net.HardwareAddr, log func(string, ...any)) (Lease, error) {
	conn, err := nclient4.NewRawUDPConn(name, nclient4.ClientPort)
	if err != nil {
		return Lease{}, fmt.Errorf("opening a raw socket: %w", err)
	}
	return RequestLease(ctx, conn, mac, log)
}

// RequestLease asks for a lease until there is one or ctx ends: two round trips.
// conn sends to 255.255.255.255:67 and receives on port 68; it is closed.
func RequestLease(ctx context.Context, conn net.PacketConn, mac net.HardwareAddr, log func(string, ...any)) (Lease, error) {
	client, err := nclient4.NewWithConn(conn, mac, nclient4.WithRetry(1), nclient4.WithTimeout(lastWait))
	if err != nil {
		conn.Close()
		return Lease{}, fmt.Errorf("starting the client: %w", err)
	}
	defer client.Close()
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		next := time.After(wait)
		lease, err := exchange(ctx, client, wait)
		if err == nil {
			return lease, nil
		}
		log("DHCP: %v; asking again", err)
		select {
		case <-next: // at once after silence, later after a refusal
		case <-ctx.Done():
			return Lease{}, err
		}
	}
}

// exchange is one DISCOVER, OFFER, REQUEST, ACK within wait for each answer.
func exchange(ctx context.Context, client *nclient4.Client, wait time.Duration) (Lease, error) {
	asked := dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer)
	phase, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	offer, err := client.DiscoverOffer(phase, asked)
	if err != nil {
		return Lease{}, answerError("DISCOVER", wait, err)
	}
	phase, cancel = context.WithTimeout(ctx, wait)
	defer cancel()
	got, err := client.RequestFromOffer(phase, offer, asked)
	if err != nil {
		return Lease{}, answerError("REQUEST", wait, err)
	}
	return parseLease(got.ACK)
}

func answerError(message string, wait time.Duration, err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nclient4.ErrNoResponse) {
		return fmt.Errorf("no answer to %s within %v", message, wait)
	}
	return fmt.Errorf("%s: %w", message, err)
}

func parseLease(ack *dhcpv4.DHCPv4) (Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() || addr.IsMulticast() || addr.IsLoopback() {
		return Lease{}, fmt.Errorf("the server offered address %v", ack.YourIPAddr)
	}
	ones, bits := ack.SubnetMask().Size()
	if bits != 32 || ones == 0 {
		return Lease{}, fmt.Errorf("the server offered %v with netmask %v", addr, ack.SubnetMask())
	}
	l := Lease{Address: netip.PrefixFrom(addr, ones)}
	for _, ip := range ack.Router() {
		if r, ok := netip.AddrFromSlice(ip.To4()); ok && !r.IsUnspecified() {
			l.Router = r
			break
		}
	}
	if !l.Router.IsValid() {
		return Lease{}, fmt.Errorf("the server offered %v without a router", l.Address)
	}
	for _, ip := range ack.DNS() {
		if s, ok := netip.AddrFromSlice(ip.To4()); ok && !s.IsUnspecified() {
			l.DNS = append(l.DNS, s)
		}
	}
	if l.DNS == nil {
		l.DNS = []netip.Addr{fallbackDNS}
	}
	return l, nil
}
