package ec2

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// mark lets a socket pass the prohibiting route that systemd-imds' locked mode
// sets up (85-imds-early.network).
const mark = 0x7FFF0815

// setMark marks a socket where we may (CAP_NET_ADMIN). Without the right, or the
// locked mode, nothing is lost.
func setMark(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
}
