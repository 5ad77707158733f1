package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// killAt is the program "kill-at N COMMAND...": it runs a command and kills it as it
// enters the Nth system call that changes something outside of it: a file, a disk,
// or what a server is told. Its exit status is 137 if it came to that, else the
// command's.
func killAt() {
	limit, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fatal(err)
	}
	runtime.LockOSThread() // the tracer is a thread
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		fatal(err)
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		fatal(err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		fatal(err)
	}
	for tid := pid; ; {
		signal := 0
		switch {
		case status.Exited() || status.Signaled():
			if tid == pid {
				os.Exit(max(status.ExitStatus(), 0))
			}
			signal = -1
		case status.StopSignal() == unix.SIGTRAP|0x80:
			if changes(tid) {
				if limit--; limit == 0 {
					unix.Kill(pid, unix.SIGKILL)
					for err == nil { // until all its threads are gone
						_, err = unix.Wait4(-1, nil, unix.WALL, nil)
					}
					os.Exit(137)
				}
			}
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP: // those two are the tracer's own
			signal = int(status.StopSignal())
		}
		if signal >= 0 {
			unix.PtraceSyscall(tid, signal) // a thread may be gone by now
		}
		if tid, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			fatal(err)
		}
	}
}

// changes reports whether a thread is about to make a system call that changes
// something. The pipes and events inside the process do not count, nor what it prints.
func changes(tid int) bool {
	const getSyscallInfo, entry = 0x420e, 1 // ptrace(2): PTRACE_GET_SYSCALL_INFO, PTRACE_SYSCALL_INFO_ENTRY
	var info struct {
		op         uint8
		arch       uint32
		ip, sp, nr uint64
		args       [6]uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != entry {
		return false
	}
	switch info.nr {
	case unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_LINKAT, unix.SYS_RENAMEAT:
		return true
	case unix.SYS_WRITE:
		to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, info.args[0]))
		return info.args[0] > 2 && (strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/"))
	}
	return false
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "kill-at:", err)
	os.Exit(125)
}
