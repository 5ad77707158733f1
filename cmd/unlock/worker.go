package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"unlock/internal/boot"
	"unlock/internal/hint"
)

// All that handles secrets happens in a child process, the worker. Libraries keep
// copies that nobody can wipe (credentials are strings), and the kernel hands
// memory that a process leaves behind to others without clearing it. So the worker
// does not exit: it stops, and its parent, which never saw a secret, overwrites
// all of its writable memory before killing it, and free memory after that
// (overwrite.go).

// workerMark is an argument that no user gives.
const workerMark = "--worker"

// resultFile is the file descriptor to which the worker writes its outcome.
const resultFile = 3

// handOver tells the parent the outcome and waits for the end. It returns only if
// there is no parent.
func handOver(outcome boot.Outcome) boot.Outcome {
	f := os.NewFile(resultFile, "result")
	if _, err := f.Write([]byte{byte(outcome)}); err != nil {
		return outcome
	}
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	for {
		_ = unix.Pause() // the signal may reach another thread first
	}
}

// runWorker runs this program as a worker and returns its outcome.
func runWorker(args ...string) (outcome boot.Outcome, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return boot.Locked, fmt.Errorf("starting the worker: %w", err)
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{workerMark}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	// The worker dies with this program; the kernel means the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return boot.Locked, fmt.Errorf("starting the worker: %w", err)
	}
	var result [1]byte
	_, err = io.ReadFull(r, result[:])
	if err != nil { // it died without a result
		return boot.Locked, fmt.Errorf("the worker broke down: %w", cmd.Wait())
	}
	if err = stopped(cmd.Process.Pid); err == nil {
		err = scrub(cmd.Process.Pid)
	}
	if err != nil {
		err = fmt.Errorf("overwriting the worker's memory: %w", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return boot.Outcome(result[0]), hint.All(err, overwriteFree())
}

// stopped waits until the process has stopped.
func stopped(pid int) error {
	var s unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &s, unix.WUNTRACED, nil)
		if err == unix.EINTR {
			continue
		}
		if err == nil && !s.Stopped() {
			err = errors.New("it did not stop")
		}
		return err
	}
}

// Bits of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
)

// scrub overwrites the writable private memory of a stopped process with zeros,
// as far as it takes up pages. The process must not run again.
func scrub(pid int) error {
	dir := fmt.Sprintf("/proc/%d/", pid)
	maps, err := os.Open(dir + "maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	pages, err := os.Open(dir + "pagemap")
	if err != nil {
		return err
	}
	defer pages.Close()
	mem, err := os.OpenFile(dir+"mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer mem.Close()
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		span, rest, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasPrefix(rest, "rw") || rest[3] != 'p' {
			continue
		}
		start, end, _ := strings.Cut(span, "-")
		from, err := strconv.ParseInt(start, 16, 64)
		if err != nil {
			return fmt.Errorf("reading its memory map: %w", err)
		}
		to, err := strconv.ParseInt(end, 16, 64)
		if err != nil {
			return fmt.Errorf("reading its memory map: %w", err)
		}
		if err := scrubRange(mem, pages, from, to); err != nil {
			return err
		}
	}
	return lines.Err()
}

func scrubRange(mem, pages *os.File, from, to int64) error {
	size := int64(os.Getpagesize())
	zeros := make([]byte, size)
	entries := make([]byte, (to-from)/size*8)
	if _, err := pages.ReadAt(entries, from/size*8); err != nil {
		return fmt.Errorf("reading which pages it has: %w", err)
	}
	for i := range len(entries) / 8 {
		if binary.NativeEndian.Uint64(entries[i*8:])&(pagePresent|pageSwapped) == 0 {
			continue
		}
		if _, err := mem.WriteAt(zeros, from+int64(i)*size); err != nil {
			return fmt.Errorf("writing to its memory: %w", err)
		}
	}
	return nil
}
