package main

import "golang.org/x/sys/unix"

// clearVectors overwrites the registers of floating point and Advanced SIMD: 32 of 16
// bytes, and 16 bytes of control and status (struct user_fpsimd_state of asm/ptrace.h).
// Nothing here uses SVE.
func clearVectors(tid int) error {
	_, err := regset(unix.PTRACE_SETREGSET, tid, unix.NT_PRFPREG, make([]byte, 32*16+16))
	return err
}
