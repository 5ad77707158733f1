package main

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// What IMDS says in the clear also passes through the kernel's own network buffers,
// out of reach of scrub. When they are freed, their pages go as they are to lists of
// free memory, one for each processor and size, from which the latest are handed
// out first. So some memory is taken on each processor and given back as zeros:
// through sockets, which take it as network buffers do, in pieces of 32 KiB, and as
// pages.

const (
	asPages   = 32 << 20  // bytes, shared by all processors
	atLeast   = 256 << 10 // but as many for each
	asBuffers = 2 << 20   // bytes for each processor
)

// overwriteFree overwrites memory that was freed lately. It takes at most half of
// what is free.
func overwriteFree() error {
	var info unix.Sysinfo_t
	var all unix.CPUSet
	err := errors.Join(unix.Sysinfo(&info), unix.SchedGetaffinity(0, &all))
	if err != nil {
		return fmt.Errorf("asking for memory and processors: %w", err)
	}
	t := &taker{left: int(uint64(info.Freeram) * uint64(info.Unit) / 2)}
	defer t.giveBack()
	// Buffers come last: a thread gives up those that it was filling only after
	// its process has been seen to end.
	for _, take := range []func() error{
		func() error { return t.pages(max(asPages/all.Count(), atLeast)) },
		func() error { return t.buffers(asBuffers) },
	} {
		if err := onEach(&all, take); err != nil {
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
	left    int // bytes that may still be taken
	mapped  [][]byte
	sockets []int
}

func (t *taker) take(n int) int {
	n = min(n, t.left) &^ (unix.Getpagesize() - 1)
	t.left -= n
	return n
}

// buffers fills a socket from which nobody reads.
func (t *taker) buffers(n int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	t.sockets = append(t.sockets, pair[:]...)
	n = t.take(n)
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, n); err != nil {
		return err
	}
	zeros := make([]byte, 32<<10)
	for sent := 0; sent < n && err == nil; {
		var wrote int
		wrote, err = unix.Write(pair[0], zeros)
		sent += wrote
	}
	if errors.Is(err, unix.EAGAIN) { // full
		return nil
	}
	return err
}

// pages fills a mapping.
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

func (t *taker) giveBack() {
	for _, m := range t.mapped {
		_ = unix.Munmap(m)
	}
	for _, s := range t.sockets {
		_ = unix.Close(s)
	}
}
