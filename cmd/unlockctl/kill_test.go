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
	if err := stopAtChanges(); err != nil {
		fatal(err)
	}
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
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESECCOMP|unix.PTRACE_O_EXITKILL); err != nil {
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
		case status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
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
			unix.PtraceCont(tid, signal) // a thread may be gone by now
		}
		if tid, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			fatal(err)
		}
	}
}

// stopAtChanges has the kernel stop what this thread starts as it enters a system call that
// may change something, and at nothing else, which would take most of the time. What is written
// to the standard descriptors does not count, nor events, of eight bytes: those this thread
// may write itself, and it has no tracer.
func stopAtChanges() error {
	const (
		number, first, third = 0, 16, 32 // in struct seccomp_data: seccomp(2)
		load                 = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal, greater       = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
		verdict              = unix.BPF_RET | unix.BPF_K
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_WRITE, Jf: 4},
		{Code: load, K: first},
		{Code: greater, K: 2, Jf: 7},
		{Code: load, K: third},
		{Code: equal, K: 8, Jt: 5, Jf: 6},
		{Code: equal, K: unix.SYS_PWRITE64, Jt: 5},
		{Code: equal, K: unix.SYS_FSYNC, Jt: 4},
		{Code: equal, K: unix.SYS_FDATASYNC, Jt: 3},
		{Code: equal, K: unix.SYS_LINKAT, Jt: 2},
		{Code: equal, K: unix.SYS_RENAMEAT, Jt: 1},
		{Code: verdict, K: unix.SECCOMP_RET_ALLOW},
		{Code: verdict, K: unix.SECCOMP_RET_TRACE},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
}

// changes reports whether a thread that was stopped is about to change something. The
// pipes inside the process do not count.
func changes(tid int) bool {
	const getSyscallInfo, seccomp = 0x420e, 3 // ptrace(2): PTRACE_GET_SYSCALL_INFO, PTRACE_SYSCALL_INFO_SECCOMP
	var info struct {
		op         uint8
		arch       uint32
		ip, sp, nr uint64
		args       [6]uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 || info.op != seccomp {
		return false
	}
	if info.nr != unix.SYS_WRITE {
		return true
	}
	to, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, info.args[0]))
	return strings.HasPrefix(to, "socket:") || strings.HasPrefix(to, "/")
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "kill-at:", err)
	os.Exit(125)
}
