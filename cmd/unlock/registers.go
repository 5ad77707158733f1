package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Copying and AES go through vector registers, and what a thread had in them when it
// last gave up its processor the kernel keeps with the thread. When the thread ends,
// that goes back as it is to a list from which only threads are made.

// scrubRegisters overwrites the vector registers of all threads of a stopped process.
// The process must not run again.
func scrubRegisters(pid int) error {
	return eachThread(pid, func(tid int) error {
		if err := clearVectors(tid); err != nil {
			return fmt.Errorf("writing to the registers of its thread %d: %w", tid, err)
		}
		return nil
	})
}

// eachThread calls f, on one thread, while it traces a thread of a stopped process
// (ptrace(2)), for all of them.
func eachThread(pid int, f func(tid int) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("reading which threads it has: %w", err)
		}
		if err = trace(tid); err != nil {
			err = fmt.Errorf("tracing its thread %d: %w", tid, err)
		} else {
			err = f(tid)
		}
		_ = unix.PtraceDetach(tid) // it stays stopped, as its process is
		if err != nil {
			return err
		}
	}
	return nil
}

// trace begins to trace a thread, and waits until it may be written to: one that was just
// made when its process stopped has yet to stop.
func trace(tid int) error {
	if err := unix.PtraceSeize(tid); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		return err
	}
	for {
		if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != unix.EINTR {
			return err
		}
	}
}

// regset has a request, PTRACE_GETREGSET or PTRACE_SETREGSET, done with b for one of the
// sets of registers that core files have (elf.h: NT_PRFPREG, …) of a traced thread, and
// returns how many bytes of b are the set.
func regset(request, tid, set int, b []byte) (int, error) {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), uintptr(set), uintptr(unsafe.Pointer(&v)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(v.Len), nil
}
