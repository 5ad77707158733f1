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
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/boot"
	"unlock/internal/hint"
	"unlock/internal/secret"
	"unlock/internal/status"
)

// All that handles secrets happens in a child process, the worker. Libraries keep
// copies that nobody can wipe (credentials are strings), and the kernel hands
// memory that a process leaves behind to others without clearing it. So the worker
// does not exit: it stops, and its parent, which never saw a secret, overwrites
// all of its writable memory and its registers (registers.go) before killing it, and
// free memory after that (overwrite.go). A worker that crashes leaves its memory to the
// kernel; of one that waits for a disk which does not answer, and is given up, the kernel
// keeps what it was reading or writing, and the registers.

// workerMark is an argument that no user gives.
const workerMark = "--worker"

// progressFile is the file descriptor on which the worker says what it is doing, and
// its outcome.
const progressFile = 3

// settledFile is a file descriptor from which the worker reads the end of the file once
// devices have settled. It alone does the part that waits for them.
const settledFile = 4

// settled is closed then.
func settled() <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		_, _ = io.Copy(io.Discard, os.NewFile(settledFile, "settled"))
	}()
	return c
}

func progress() *boot.Progress {
	unix.CloseOnExec(progressFile) // who makes file systems has nothing to say
	unix.CloseOnExec(settledFile)
	return boot.NewProgress(os.NewFile(progressFile, "progress"))
}

// handOver tells the parent the outcome and waits for the end. It returns only if
// there is no parent.
func handOver(p *boot.Progress, outcome boot.Outcome) boot.Outcome {
	if p.Outcome(outcome) != nil {
		return outcome
	}
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	for {
		_ = unix.Pause() // the signal may reach another thread first
	}
}

// parent is this process as far as it has parts done by workers.
type parent struct {
	began  time.Duration // when the next part was asked for, since the kernel started; 0: when it is begun
	settle func(*noted)  // returns when devices have settled; nil: they have
	noted  noted
	some   bool // of the parts were done
}

// beganVariable is how long the kernel had run when a worker's part was asked for, in
// nanoseconds.
const beganVariable = "UNLOCK_BEGAN"

// work has a part done, and completes its record.
func (p *parent) work(args ...string) (boot.Outcome, error) {
	debug.SetGCPercent(25) // else what is resident of this process would be garbage of up to 4 MiB
	began := p.began
	if began == 0 {
		began = uptime()
	}
	p.began, p.some = 0, true
	settle := p.settle
	if p.settle = nil; settle == nil {
		settle = func(*noted) {}
	}
	var meanwhile noted
	outcome, last, peak, err := runWorker(began, args, func() { settle(&meanwhile) })
	p.noted = append(p.noted, meanwhile...)
	_ = p.noted.enter(status.DefaultFile, last, peak) // the worker has said what hinders it
	return outcome, err
}

// close closes the door behind the keys, and notes how long that took.
func (p *parent) close() error {
	if !p.some {
		return capPCR()
	}
	err := p.noted.note("capping", capPCR)
	_ = p.noted.enter(status.DefaultFile, "", 0) // likewise
	return err
}

// runWorker runs this program as a worker, and settle beside it. It returns its outcome,
// what this process did after the worker, and how much memory both have had, in bytes
// resident.
func runWorker(began time.Duration, args []string, settle func()) (outcome boot.Outcome, last string, peak int64, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return boot.Locked, "", 0, fmt.Errorf("starting the worker: %w", err)
	}
	defer r.Close()
	hears, says, err := os.Pipe()
	if err != nil {
		w.Close()
		return boot.Locked, "", 0, fmt.Errorf("starting the worker: %w", err)
	}
	var settling sync.WaitGroup
	settling.Go(func() {
		defer says.Close()
		settle()
	})
	defer settling.Wait()
	cmd := exec.Command("/proc/self/exe", append([]string{workerMark}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w, hears}
	cmd.Env = append(os.Environ(), "GODEBUG="+secret.NoPreemption, beganVariable+"="+strconv.FormatInt(int64(began), 10))
	// The worker dies with this program; the kernel means the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Start()
	w.Close()
	hears.Close()
	if err != nil {
		return boot.Locked, "", 0, fmt.Errorf("starting the worker: %w", err)
	}
	outcome, innocent, err := boot.Follow(r)
	// Both have the same pages of the program's file. This process has done little but wait;
	// later it takes more, to overwrite it.
	peak = boot.Resident(strconv.Itoa(cmd.Process.Pid), "VmHWM") + boot.Resident("self", "RssAnon")
	if errors.Is(err, boot.ErrBroke) { // its memory is free already
		return outcome, "", peak, hint.All(fmt.Errorf("%w: %w", err, cmd.Wait()), overwriteFree())
	}
	if innocent { // what it leaves may be anybody's
		_ = cmd.Process.Kill()
		_ = within(endFor, cmd.Wait)
		return outcome, "ending", peak, nil
	}
	if last = "overwriting"; err != nil {
		kernelLog.Failure(err) // now: what follows may take a while
		last = ""              // it would seem to have begun when the worker wrote its record
	}
	return outcome, last, peak, hint.All(end(cmd), overwriteFree())
}

// endFor is how long a worker is waited for that was given up: the kernel holds what a
// disk has not answered to, and neither stops nor ends it before the disk does.
const endFor = time.Second

// scrubFor is for overwriting memory and registers, which nothing should hold up.
const scrubFor = 10 * time.Second

// end overwrites what a worker that has handed over, or was given up, has in memory and
// registers, and kills it. What of one that was given up cannot be stopped asleep in the
// kernel runs no more code of its own: it finds itself killed.
func end(cmd *exec.Cmd) error {
	_ = cmd.Process.Signal(unix.SIGSTOP) // it stops by itself, unless it was given up
	pid := cmd.Process.Pid
	err := wipe(pid, stopped(pid, endFor))
	_ = cmd.Process.Kill()
	_ = within(endFor, cmd.Wait) // whatever it says
	return err
}

// wipe overwrites a worker's memory, and its registers if it has stopped: else the kernel
// lets nobody write to them.
func wipe(pid int, still bool) error {
	err := within(scrubFor, func() error {
		err := scrub(pid)
		if still {
			err = errors.Join(err, scrubRegisters(pid))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("overwriting what the worker leaves: %w", err)
	}
	return nil
}

// stopped waits until the process has stopped, but not for ever.
func stopped(pid int, most time.Duration) bool {
	var s unix.WaitStatus
	for end := time.Now().Add(most); time.Now().Before(end); <-time.After(time.Millisecond) {
		if n, err := unix.Wait4(pid, &s, unix.WUNTRACED|unix.WNOHANG, nil); n == pid || err != nil && err != unix.EINTR {
			return err == nil && s.Stopped()
		}
	}
	return false
}

// within returns what f does, or an error if that takes longer.
func within(most time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(most):
		return errors.New("the kernel does not get to it")
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
