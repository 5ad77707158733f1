package block

import (
	"bytes"
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ueventSource receives the kernel's uevents (lib/kobject_uevent.c): datagrams
// of a header and NUL-terminated KEY=value strings, at most 2 KiB plus the path.
type ueventSource struct {
	sock *os.File
	buf  []byte
}

// subsystems are those whose events can mean that a disk came, went or changed.
var subsystems = []string{"block", "nvme", "nvme-subsystem", "pci", "virtio", "xen", "scsi"}

func listenUevents() (eventSource, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	const kernelGroup = 1 // 2 would be udev's
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &ueventSource{os.NewFile(uintptr(fd), "uevents"), make([]byte, 16<<10)}, nil
}

func (s *ueventSource) Close() error { return s.sock.Close() }

func (s *ueventSource) wait(ctx context.Context) error {
	// A deadline in the past wakes the read. A stop that comes too late leaves
	// it set for a moment of the next call, which therefore asks its own ctx.
	stop := context.AfterFunc(ctx, func() { s.sock.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for ctx.Err() == nil {
		if err := s.sock.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break // ended before the deadline was taken back
		}
		relevant, err := s.read()
		if relevant || err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return ctx.Err()
}

// read blocks until something comes, takes everything that is pending, and tells
// whether any of it concerns disks. Lost events (ENOBUFS) do.
func (s *ueventSource) read() (relevant bool, err error) {
	conn, err := s.sock.SyscallConn()
	if err != nil {
		return false, err
	}
	var failure error
	err = conn.Read(func(fd uintptr) bool {
		for any := false; ; any = true {
			n, from, err := unix.Recvfrom(int(fd), s.buf, 0)
			switch {
			case err == unix.EAGAIN:
				return any
			case err == unix.EINTR:
			case err == unix.ENOBUFS:
				relevant = true
			case err != nil:
				failure = os.NewSyscallError("recvfrom", err)
				return true
			default:
				sender, ok := from.(*unix.SockaddrNetlink)
				relevant = relevant || ok && sender.Pid == 0 && concernsDisks(s.buf[:n])
			}
		}
	})
	return relevant, errors.Join(failure, err)
}

// concernsDisks reads the SUBSYSTEM of a uevent.
func concernsDisks(event []byte) bool {
	for field := range bytes.SplitSeq(event, []byte{0}) {
		if name, ok := bytes.CutPrefix(field, []byte("SUBSYSTEM=")); ok {
			return slices.Contains(subsystems, string(name))
		}
	}
	return false
}
