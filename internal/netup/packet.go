package netup

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of headers, in bytes: Ethernet, IPv4 without options, UDP.
const (
	ethSize = 14
	ipSize  = 20
	udpSize = 8
)

// packetConn is UDP from port 68 for a card that has no address yet: whole frames to
// everybody on its link, and those received that are for port 68.
type packetConn struct {
	file *os.File
	mac  net.HardwareAddr
}

func newPacketConn(index int, mac net.HardwareAddr) (*packetConn, error) {
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		if err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: index}); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	return &packetConn{os.NewFile(uintptr(fd), "packet socket"), mac}, nil
}

// WriteTo implements net.PacketConn. The destination is IPv4's broadcast address.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	frame := make([]byte, 0, ethSize+ipSize+udpSize+len(b))
	frame = append(frame, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	frame = append(frame, c.mac...)
	frame = append(frame, unix.ETH_P_IP>>8, unix.ETH_P_IP&0xff)

	frame = append(frame, 0x45, 0) // version 4, five words
	frame = binary.BigEndian.AppendUint16(frame, uint16(ipSize+udpSize+len(b)))
	frame = append(frame, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0) // 64 hops; the checksum comes below
	frame = append(frame, 0, 0, 0, 0, 255, 255, 255, 255)
	ip := frame[ethSize:]
	var sum uint32
	for i := 0; i < ipSize; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))

	frame = binary.BigEndian.AppendUint16(frame, dhcpClientPort)
	frame = binary.BigEndian.AppendUint16(frame, uint16(to.(*net.UDPAddr).Port))
	frame = binary.BigEndian.AppendUint16(frame, uint16(udpSize+len(b)))
	frame = append(frame, 0, 0) // no checksum
	if _, err := c.file.Write(append(frame, b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom implements net.PacketConn. Checksums are not looked at: virtual cards leave
// them to be made by hardware that is not there.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	frame := make([]byte, 1<<14)
	for {
		n, err := c.file.Read(frame)
		if err != nil {
			return 0, nil, err
		}
		if payload, from := udpOf(frame[:n]); from != nil {
			return copy(b, payload), from, nil
		}
	}
}

// udpOf returns what a frame has for port 68, and the sender; nil if that is not so.
func udpOf(frame []byte) ([]byte, net.Addr) {
	if len(frame) < ethSize+ipSize {
		return nil, nil
	}
	ip := frame[ethSize:]
	head, size := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff
	if ip[0]>>4 != 4 || head < ipSize || ip[9] != unix.IPPROTO_UDP || fragment != 0 || size > len(ip) || size < head+udpSize {
		return nil, nil
	}
	udp := ip[head:size]
	if binary.BigEndian.Uint16(udp[2:]) != dhcpClientPort {
		return nil, nil
	}
	if n := int(binary.BigEndian.Uint16(udp[4:])); n >= udpSize && n < len(udp) {
		udp = udp[:n]
	}
	return udp[udpSize:], &net.UDPAddr{IP: net.IP(ip[12:16]), Port: int(binary.BigEndian.Uint16(udp))}
}

// Close implements net.PacketConn.
func (c *packetConn) Close() error { return c.file.Close() }

// LocalAddr implements net.PacketConn.
func (c *packetConn) LocalAddr() net.Addr {
	return &net.UDPAddr{IP: net.IPv4zero, Port: dhcpClientPort}
}

// SetDeadline implements net.PacketConn.
func (c *packetConn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *packetConn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (c *packetConn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }
