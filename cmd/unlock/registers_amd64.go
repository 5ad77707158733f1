package main

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Where an XSAVE area says which of its parts are in use, and where the kernel says which
// the processor has (Intel SDM, volume 1, section 13.4; asm/user.h).
const (
	partsInUse = 512
	partsThere = 464
)

// vectors are the parts that hold registers of programs which do not ask for more: x87,
// SSE, AVX, and three of AVX-512.
const vectors = 1<<0 | 1<<1 | 1<<2 | 1<<5 | 1<<6 | 1<<7

// clearVectors overwrites them. What the kernel takes for unused it need not overwrite, so
// all are said to be in use.
func clearVectors(tid int) error {
	all := make([]byte, 16<<10) // the largest, with AMX, has 11 KB
	n, err := regset(unix.PTRACE_GETREGSET, tid, unix.NT_X86_XSTATE, all)
	if errors.Is(err, unix.ENODEV) { // a processor without XSAVE has nothing but what FXSAVE saves
		_, err = regset(unix.PTRACE_SETREGSET, tid, unix.NT_PRFPREG, make([]byte, 512))
		return err
	}
	if err != nil {
		return err
	}
	all = all[:n]
	used := binary.LittleEndian.Uint64(all[partsInUse:]) | binary.LittleEndian.Uint64(all[partsThere:])&vectors
	clear(all)
	binary.LittleEndian.PutUint64(all[partsInUse:], used)
	_, err = regset(unix.PTRACE_SETREGSET, tid, unix.NT_X86_XSTATE, all)
	return err
}
