package netup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"
)

// Times of the DHCP clients: an answer is awaited this long, at first and at
// most; each failure doubles it.
const (
	firstWait = 500 * time.Millisecond
	lastWait  = 32 * time.Second
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Lease is what a DHCP server gave.
type Lease struct {
	Address netip.Prefix
	Router  netip.Addr    // of the default route, or of the first one if there is none
	Routes  []Route       // the router's, or those of RFC 3442 in its stead
	DNS     []netip.Addr  // EC2's own resolver if the server named none
	Server  netip.Addr    // invalid if it does not name itself
	Time    time.Duration // for which it is good; 0: the server does not say
}

// Route is a route of a lease.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // invalid: To is on the link
}

// RequestLease asks for a lease until there is one or ctx ends: two round trips.
// conn sends to 255.255.255.255:67 and receives on port 68; it is closed.
func RequestLease(ctx context.Context, conn net.PacketConn, mac net.HardwareAddr, log func(string, ...any)) (Lease, error) {
	c := &dhcpClient{conn: conn, mac: mac, id: rand.Uint32(), failed: map[netip.Addr]bool{}, received: make(chan *message, 16)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.read()
	}()
	defer func() { <-done }()
	defer conn.Close() // ends read
	return persist(ctx, "DHCP", log, c.exchange)
}

// persist exchanges messages until there is a lease or ctx ends, waiting longer each time.
func persist[L any](ctx context.Context, protocol string, log func(string, ...any), exchange func(context.Context, time.Duration) (L, error)) (none L, _ error) {
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		next := time.After(wait)
		lease, err := exchange(ctx, wait)
		if err == nil {
			return lease, nil
		}
		if ctx.Err() != nil {
			return none, err
		}
		log("%s: %v; asking again", protocol, err)
		select {
		case <-next: // at once after silence, later after a refusal
		case <-ctx.Done():
			return none, err
		}
	}
}

// dhcpClient asks for one lease. All its messages have one id, so that an answer
// is good however late it comes.
type dhcpClient struct {
	conn      net.PacketConn
	mac       net.HardwareAddr
	id        uint32
	requested netip.Addr          // asked for, so an acknowledgement of it is good
	failed    map[netip.Addr]bool // servers that did not keep an offer: others are preferred
	received  chan *message
}

// read passes on messages to this client until the connection is closed. Other errors
// come and go with the link; many in a row do not.
func (c *dhcpClient) read() {
	b := make([]byte, 1500)
	for errs := 0; errs < 100; errs++ {
		n, _, err := c.conn.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		errs = 0
		if m, ok := parseMessage(b[:n], c.mac); ok && m.id == c.id {
			select {
			case c.received <- m:
			default: // a flood; what is lost is asked for again
			}
		}
	}
}

// exchange is one DISCOVER, OFFER, REQUEST, ACK within wait for each answer.
func (c *dhcpClient) exchange(ctx context.Context, wait time.Duration) (Lease, error) {
	if err := c.send(&message{kind: discover}); err != nil {
		return Lease{}, err
	}
	var second, chosen *message // of a server that failed, and to be taken
	var bad error
	acked, lease, err := c.await(ctx, wait, func(m *message) bool {
		switch _, err := m.lease(); {
		case m.kind != offer:
		case err != nil:
			bad = err
		case c.failed[m.server()]:
			second = m
		default:
			chosen = m
			return true
		}
		return false
	})
	if acked {
		return lease, err
	}
	if chosen == nil {
		chosen = second
	}
	if chosen == nil {
		if bad != nil {
			return Lease{}, bad
		}
		return Lease{}, fmt.Errorf("no answer to DISCOVER within %v", wait)
	}
	c.requested = chosen.address
	ask := &message{kind: request, options: map[byte][]byte{optRequested: chosen.address.AsSlice()}}
	if id, ok := chosen.options[optServer]; ok {
		ask.options[optServer] = id
	}
	if err := c.send(ask); err != nil {
		return Lease{}, err
	}
	refused := ""
	acked, lease, err = c.await(ctx, wait, func(m *message) bool {
		if m.kind == nak && m.server() == chosen.server() {
			refused = "the server refused " + chosen.address.String()
			if text := m.options[optText]; len(text) > 0 {
				refused = fmt.Sprintf("%s: %q", refused, text)
			}
		}
		return refused != ""
	})
	if acked {
		return lease, err
	}
	c.failed[chosen.server()] = true
	if refused != "" {
		c.requested = netip.Addr{}
		return Lease{}, errors.New(refused)
	}
	return Lease{}, fmt.Errorf("no answer to REQUEST within %v", wait)
}

// await reads messages for as long as wait, or until enough says so or what was
// requested is acknowledged.
func (c *dhcpClient) await(ctx context.Context, wait time.Duration, enough func(*message) bool) (acked bool, _ Lease, _ error) {
	end := time.After(wait)
	for {
		select {
		case m := <-c.received:
			if m.kind == ack && c.requested.IsValid() && m.address == c.requested {
				l, err := m.lease()
				return true, l, err
			}
			if enough(m) {
				return false, Lease{}, nil
			}
		case <-end:
			return false, Lease{}, nil
		case <-ctx.Done():
			return false, Lease{}, nil
		}
	}
}

func (c *dhcpClient) send(m *message) error {
	m.id = c.id
	_, err := c.conn.WriteTo(m.bytes(c.mac), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpServerPort})
	if err != nil {
		return fmt.Errorf("sending: %w", err)
	}
	return nil
}
