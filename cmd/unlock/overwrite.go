package main

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// What IMDS says in the clear also passes through the kernel's own network buffers,
// out of reach of scrub. When they are freed, their pages go as they are to lists of
// free memory: one for each processor, size, and whether they are a process's or the
// kernel's own. The latest are handed out first. So some of each kind is taken on each
// processor and given back as zeros: as pages of this process, as pages of pipes, and
// as buffers of sockets, which like those of the network are pieces of 32 KiB, or small
// ones that share pages. A page of small ones stays what it is while one of them is in
// use, and only small ones of its kind get the rest of it. Those of Unix sockets
// are charged to control groups and are of another kind than the network's, so there
// are also some of netlink's (netlink(7)).

const (
	ofEachKind = 16 << 20 // bytes, shared by all processors
	atLeast    = 1 << 20  // but as many for each
	fewest     = 96       // small buffers of each size for each processor, which may keep as many free
)

// smallBuffers are sizes in bytes of what a socket is given at a time to have the kernel
// allocate 512, 1024, 2048 and 4096 of them, 320 being its own.
var smallBuffers = []int{128, 640, 1600, 3700}

// overwriteFree overwrites memory that was freed lately. It takes at most half of
// what is free.
func overwriteFree() error {
	var info unix.Sysinfo_t
	var all unix.CPUSet
	err := errors.Join(unix.Sysinfo(&info), unix.SchedGetaffinity(0, &all))
	if err != nil {
		return fmt.Errorf("asking for memory and processors: %w", err)
	}
	t := &taker{left: int(uint64(info.Freeram) * uint64(info.Unit) / 2), zeros: make([]byte, 32<<10)}
	defer t.giveBack()
	n := max(ofEachKind/all.Count(), atLeast)
	// Buffers come last: a thread gives up those that it was filling only after
	// its process has been seen to end.
	for _, take := range []func(n int) error{t.pages, t.pipes, t.buffers, t.networkBuffers} {
		if err := onEach(&all, func() error { return take(n) }); err != nil {
			return fmt.Errorf("overwriting free memory: %w", err)
		}
	}
	return nil
}

// onEach calls f on each processor in turn.
func onEach(all *unix.CPUSet, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.SchedSetaffinity(0, all)
	for cpu, left := 0, all.Count(); left > 0; cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		left--
		var one unix.CPUSet
		one.Set(cpu)
		if unix.SchedSetaffinity(0, &one) != nil {
			continue // it was unplugged
		}
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// taker holds memory.
type taker struct {
	left   int // bytes that may still be taken
	zeros  []byte
	mapped [][]byte
	files  []int
}

func (t *taker) take(n int) int {
	n = min(n, t.left)
	t.left -= n
	return n
}

// pages takes pages of the process.
func (t *taker) pages(n int) error {
	if n = t.take(n); n == 0 {
		return nil
	}
	m, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	t.mapped = append(t.mapped, m)
	_ = unix.Madvise(m, unix.MADV_NOHUGEPAGE) // they come from elsewhere
	for i := 0; i < n; i += unix.Getpagesize() {
		m[i] = 1
	}
	return nil
}

// pipes takes single pages of the kernel.
func (t *taker) pipes(n int) error {
	const most = 1 << 20 // bytes in a pipe, unless the kernel is told otherwise
	for n = t.take(n); n > 0; n -= most {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			return err
		}
		t.files = append(t.files, ends[:]...)
		if _, err := unix.FcntlInt(uintptr(ends[1]), unix.F_SETPIPE_SZ, most); err != nil {
			return err
		}
		if err := t.fill(ends[1], min(n, most), len(t.zeros)); err != nil {
			return err
		}
	}
	return nil
}

// buffers takes pieces of 32 KiB of the kernel, and as many small ones of each size.
func (t *taker) buffers(n int) error {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.files = append(t.files, ends[:]...)
	n = t.take(n)
	// The kernel doubles it, which leaves room for the small ones and for its own.
	if err := unix.SetsockoptInt(ends[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n); err != nil {
		return err
	}
	if err := t.small(ends[1], n); err != nil {
		return err
	}
	return t.fill(ends[1], n, len(t.zeros))
}

// networkBuffers takes as many small ones of each size as buffers does, but as the
// network is given them.
func (t *taker) networkBuffers(n int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_USERSOCK)
	if err != nil {
		return err
	}
	t.files = append(t.files, fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	self, err := unix.Getsockname(fd)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, self); err != nil {
		return err
	}
	n = t.take(n)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n); err != nil {
		return err
	}
	return t.small(fd, n)
}

// small has the kernel allocate as many small buffers of each size as n has of 32 KiB,
// but not fewer than fewest, as far as the socket may hold them.
func (t *taker) small(fd, n int) error {
	for _, size := range smallBuffers {
		if err := t.fill(fd, max(n/len(t.zeros), fewest)*size, size); err != nil {
			return err
		}
	}
	return nil
}

// fill writes up to n zeros, so many at a time, to a file from which nobody reads.
func (t *taker) fill(fd, n, each int) error {
	for n > 0 {
		wrote, err := unix.Write(fd, t.zeros[:min(n, each)])
		if errors.Is(err, unix.EAGAIN) {
			return nil // it is full
		}
		if err != nil {
			return err
		}
		n -= wrote
	}
	return nil
}

func (t *taker) giveBack() {
	for _, m := range t.mapped {
		_ = unix.Munmap(m)
	}
	for _, fd := range t.files {
		_ = unix.Close(fd)
	}
}
