package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/status"
)

// What the worker does not see of the time of a boot, its parent adds to the record: what
// came before the worker, and the overwriting. Both count from when the kernel started
// (CLOCK_BOOTTIME), so that a clock that is set meanwhile does no harm.

// uptime is how long the kernel has run.
func uptime() time.Duration {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	return time.Duration(now.Nano())
}

// started is how long the kernel had run when this process was made, to a hundredth of a
// second (proc(5), /proc/PID/stat, field 22).
func started() time.Duration {
	data, _ := os.ReadFile("/proc/self/stat")
	const tick, field = 10 * time.Millisecond, 22 - 3 // the third follows the name's parenthesis
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) <= field {
		return uptime()
	}
	n, err := strconv.ParseInt(string(f[field]), 10, 64)
	if err != nil {
		return uptime()
	}
	return min(time.Duration(n)*tick, uptime())
}

// kernelEnd is how long the kernel had run when it started the first process, as its log
// says; 0: it does not say any more. The log is read once.
var kernelEnd = sync.OnceValue(func() time.Duration {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	record := make([]byte, 8<<10) // PREFIX,NUMBER,MICROSECONDS,…;TEXT (Documentation/ABI/testing/dev-kmsg)
	for {
		n, err := unix.Read(fd, record)
		switch {
		case err == unix.EPIPE || err == unix.EINTR: // some were overwritten meanwhile
			continue
		case err != nil || n == 0:
			return 0
		}
		head, text, _ := strings.Cut(string(record[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		if !strings.HasPrefix(text, "Run ") || !strings.HasSuffix(text, " as init process") {
			continue
		}
		if f := strings.Split(head, ","); len(f) > 2 {
			us, _ := strconv.ParseInt(f[2], 10, 64)
			return time.Duration(us) * time.Microsecond
		}
	}
})

// span is what took time beside the worker.
type span struct {
	name     string
	from, to time.Duration
}

// noted are spans of this process that no record has yet.
type noted []span

// note runs f and notes how long it took.
func (n *noted) note(name string, f func() error) error {
	from := uptime()
	err := f()
	*n = append(*n, span{name, from, uptime()})
	return err
}

// enter adds them to the record of this boot, what began where the record ends and
// has ended by now ("": nothing did), and the resident sets of a worker, at its largest, and
// of this process beside it, together, in bytes.
func (n *noted) enter(file, last string, peak int64) error {
	b, err := status.Read(file)
	if err != nil || b.BootID != bootID() || b.Began == 0 {
		return err
	}
	if b.Kernel == 0 {
		b.Kernel = status.Millis(kernelEnd())
	}
	now := status.Millis(uptime()) - b.Began
	for _, s := range *n {
		b.Steps = append(b.Steps, status.Step{Name: s.name, Start: status.Millis(s.from) - b.Began, Duration: status.Millis(s.to - s.from)})
	}
	if *n = nil; last != "" {
		b.Steps = append(b.Steps, status.Step{Name: last, Start: b.Duration, Duration: now - b.Duration})
	}
	b.Duration = now
	b.PeakRSS = max(b.PeakRSS, peak)
	return status.Write(file, b)
}
