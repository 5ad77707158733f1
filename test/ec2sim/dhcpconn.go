package ec2sim

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const errNoRoute = syscall.ENETUNREACH

// dhcpConn is a Guest's raw UDP connection on port 68, or over IPv6 on port 546.
type dhcpConn struct {
	guest    *Guest
	six      bool
	received chan []byte
	closed   chan struct{}
	once     sync.Once

	// deadline carries a changed read deadline to a read that waits already.
	deadline chan time.Time
	mu       sync.Mutex
	until    time.Time
}

// deliver must not block: it is the guest's wire. What nobody reads is lost.
func (d *dhcpConn) deliver(payload []byte) {
	select {
	case d.received <- payload:
	default:
	}
}

// ReadFrom implements net.PacketConn.
func (d *dhcpConn) ReadFrom(b []byte) (int, net.Addr, error) {
	d.mu.Lock()
	until := d.until
	d.mu.Unlock()
	for {
		var expired <-chan time.Time
		if !until.IsZero() {
			t := time.NewTimer(time.Until(until))
			defer t.Stop()
			expired = t.C
		}
		select {
		case p := <-d.received:
			return copy(b, p), &net.UDPAddr{IP: net.IP(routerAddr.AsSlice()), Port: dhcpServerPort}, nil
		case until = <-d.deadline:
		case <-expired:
			return 0, nil, os.ErrDeadlineExceeded
		case <-d.closed:
			return 0, nil, net.ErrClosed
		}
	}
}

// WriteTo implements net.PacketConn.
func (d *dhcpConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	select {
	case <-d.closed:
		return 0, net.ErrClosed
	default:
	}
	to, ok := addr.(*net.UDPAddr)
	if ok && d.six {
		src := netip.AddrPortFrom(d.guest.linkLocal(), dhcp6ClientPort)
		dst := netip.AddrPortFrom(to.AddrPort().Addr().WithZone(""), uint16(to.Port))
		d.guest.cloud.receive(d.guest.port, udpFrame6(d.guest.mac, net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2}, src, dst, b))
		return len(b), nil
	}
	if !ok || to.IP.To4() == nil {
		return 0, &net.AddrError{Err: "not an IPv4 UDP address", Addr: addr.String()}
	}
	src := netip.AddrPortFrom(netip.IPv4Unspecified(), dhcpClientPort)
	dst := netip.AddrPortFrom(to.AddrPort().Addr().Unmap(), uint16(to.Port))
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	d.guest.cloud.receive(d.guest.port, udpFrame(d.guest.mac, broadcast, src, dst, b))
	return len(b), nil
}

// Close implements net.PacketConn.
func (d *dhcpConn) Close() error {
	d.once.Do(func() {
		close(d.closed)
		d.guest.mu.Lock()
		defer d.guest.mu.Unlock()
		delete(d.guest.dhcp, d)
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (d *dhcpConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv4zero, Port: dhcpClientPort}
}

// SetDeadline implements net.PacketConn. Writes never wait.
func (d *dhcpConn) SetDeadline(t time.Time) error { return d.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (d *dhcpConn) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = t
	select { // replace a change that no read has seen yet
	case <-d.deadline:
	default:
	}
	d.deadline <- t
	return nil
}

// SetWriteDeadline implements net.PacketConn.
func (d *dhcpConn) SetWriteDeadline(time.Time) error { return nil }
