package badinput

import (
	"net"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// wire is the raw socket of a DHCP client, with a server at its other end.
type wire struct {
	mutate  func(service string, answer []byte) []byte
	answers chan []byte
	closed  chan struct{}
	once    sync.Once
}

func newWire(mutate func(string, []byte) []byte) *wire {
	return &wire{mutate: mutate, answers: make(chan []byte, 8), closed: make(chan struct{})}
}

var card = net.HardwareAddr{2, 0, 0, 0, 0, 1}

func (w *wire) WriteTo(b []byte, _ net.Addr) (int, error) {
	request, err := dhcpv4.FromBytes(b)
	if err != nil {
		return 0, err
	}
	kind := dhcpv4.MessageTypeOffer
	if request.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	reply, err := dhcpv4.NewReplyFromRequest(request, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(net.IPv4(172, 31, 5, 10)),
		dhcpv4.WithServerIP(net.IPv4(172, 31, 0, 1)), dhcpv4.WithNetmask(net.CIDRMask(20, 32)), dhcpv4.WithRouter(net.IPv4(172, 31, 0, 1)),
		dhcpv4.WithDNS(net.IPv4(172, 31, 0, 2)), dhcpv4.WithLeaseTime(3600), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(172, 31, 0, 1))))
	if err != nil {
		return 0, err
	}
	select {
	case w.answers <- w.mutate("dhcp", reply.ToBytes()):
	default:
	}
	return len(b), nil
}

func (w *wire) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case a := <-w.answers:
		return copy(b, a), &net.UDPAddr{IP: net.IPv4(172, 31, 0, 1), Port: 67}, nil
	case <-w.closed:
		return 0, nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

func (w *wire) LocalAddr() net.Addr              { return &net.UDPAddr{Port: 68} }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
