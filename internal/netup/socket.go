package netup

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSegment is the largest TCP segment to send and to be sent, in bytes: that of
// IPv6's least MTU, which every path carries. Cards of a VPC carry 9,001 bytes and many
// ways out of it 1,500; where the messages that say so are dropped, TLS's first
// messages, which are longer, would be lost each time.
const maxSegment = 1280 - 40 - 20

// imdsMark lets a socket pass the prohibiting route to IMDS that systemd-imds' locked
// mode sets up (85-imds-early.network).
const imdsMark = 0x7FFF0815

// IMDS4 and IMDS6 are the addresses of the instance metadata service, which answers at
// the second only where that is enabled.
var (
	IMDS4 = netip.MustParseAddr("169.254.169.254")
	IMDS6 = netip.MustParseAddr("fd00:ec2::254")
)

// control runs set on a socket.
func control(c syscall.RawConn, set func(fd int) error) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = set(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// bind has a socket use the card number index alone; 0: what the routes say.
func bind(fd, index int) error {
	if index == 0 {
		return nil
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, index)
	if !errors.Is(err, unix.ENOPROTOOPT) {
		return err
	}
	card, err := net.InterfaceByIndex(index) // before Linux 5.0
	if err != nil {
		return err
	}
	return unix.BindToDevice(fd, card.Name)
}

// dialer opens connections through the card number index.
func dialer(index int) *net.Dialer {
	return &net.Dialer{ControlContext: func(_ context.Context, network, addr string, c syscall.RawConn) error {
		return control(c, func(fd int) error {
			if to, err := netip.ParseAddrPort(addr); err == nil && (to.Addr() == IMDS4 || to.Addr() == IMDS6) {
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, imdsMark) // without the right, nothing but the locked mode is lost
			}
			if network[:3] == "tcp" {
				if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, maxSegment); err != nil {
					return err
				}
			}
			return bind(fd, index)
		})
	}}
}
