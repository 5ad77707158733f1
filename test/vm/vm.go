// Package vm boots machines in QEMU for the scenarios of scripts/qemu-test and
// for the demonstration: a machine without acceleration, disks from image files,
// a network card that a Go program serves, and the console, line by line.
// Running a machine needs no root. It also fetches and caches the kernel and
// makes the real root that they boot.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// CPUs of a machine.
const CPUs = 2

// Machine is a machine to boot once.
type Machine struct {
	ARM64     bool          // instead of amd64
	Firmware  string        // UEFI firmware, which boots from Disks; "": Kernel, Initrd and Append are booted
	Kernel    string        // image of the kernel
	Initrd    string        // image of the initramfs; "": none
	Append    string        // kernel command line, after what args.go has for every machine
	Memory    int           // MiB; 0: 1024
	Clock     string        // the hardware clock at the start, as "1970-01-01T00:00:00"; "": the right time
	Disks     []Disk        // beside Root, in this order
	Root      string        // ext4 image, seen as /dev/vda; "": none
	KeepRoot  bool          // what the machine writes to Root is not thrown away
	Script    string        // what the system runs when it is up, seen as the virtio disk after Root
	Cards     []Card        // network cards, in this order
	TPM       TPM           // may be nil
	OEM       []string      // SMBIOS' OEM strings, which whoever starts a machine can set
	Variables string        // UEFI variables of Firmware, a flash image; what the machine writes is thrown away; "": none, and no Secure Boot
	Type      []Typed       // what is typed at the console
	Events    []Event       // what else befalls it
	Timeout   time.Duration // 0: 15 min, as the host may be busy
	Cut       string        // power fails once the console shows this; "": it does not
	CutWait   time.Duration // and this much later
	CutWhen   func() bool   // power fails when this becomes true, asked every few milliseconds; may be nil
	Output    io.Writer     // gets the console as it comes; may be nil
}

// TPM is a TPM 2.0 behind swtpm's control channel.
type TPM interface {
	// Plug starts it for one boot. QEMU is to connect to the socket. unplug ends it, and
	// reports what went wrong meanwhile.
	Plug(ctx context.Context) (socket string, unplug func() error, err error)
}

// Typed is text typed at the console once it shows another; a question that is
// asked again gets the next text.
type Typed struct {
	When, Text string
	After      time.Duration // that a person takes to begin
}

// Run boots the machine and waits until it powers off or reboots, which ends it
// too, or until its power fails. The Console is valid, as far as it goes, even with an error.
func (m *Machine) Run(ctx context.Context) (console Console, failed error) {
	timeout := m.Timeout
	if timeout == 0 {
		timeout = 15 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "unlock-vm-")
	if err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	defer os.RemoveAll(dir)
	args, err := m.args(dir)
	if err != nil {
		return nil, err
	}
	var before []Request // the machine starts
	for _, e := range m.Events {
		if e.When == "" {
			before = append(before, e.Do...)
		}
	}
	if before != nil {
		args, before = append(args, "-S"), append(before, Request{Execute: "cont"})
	}
	for i, c := range m.Cards {
		if c.Plug == nil {
			continue
		}
		unplug, err := c.plug(dir, i)
		if err != nil {
			return nil, err
		}
		defer unplug()
	}
	if m.TPM != nil {
		socket, unplug, err := m.TPM.Plug(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { failed = errors.Join(failed, unplug()) }()
		args = append(args, "-chardev", "socket,id=tpm,path="+escape(socket), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	}
	cmd := exec.CommandContext(ctx, m.qemu(), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // of the snapshot
	cmd.WaitDelay = 5 * time.Second
	// The machine dies with this program, however that dies. The kernel means the
	// thread that started it, which therefore has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	keyboard, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	running, ended := context.WithCancelCause(ctx)
	h := &hand{machine: m, dir: dir, keyboard: keyboard, ctx: running, end: func(why error) {
		ended(why)
		_ = cmd.Process.Kill() // it may have ended meanwhile
	}}
	h.tasks.Go(h.watchDisks)
	h.request(before...)
	console = m.read(out, time.Now(), h.triggers())
	err = cmd.Wait()
	why := context.Cause(running)
	ended(nil)
	h.tasks.Wait()
	switch {
	case errors.Is(why, errCut):
		return console, nil
	case ctx.Err() != nil:
		return console, fmt.Errorf("the machine did not end within %v: %w", timeout, ctx.Err())
	case why != nil:
		return console, fmt.Errorf("%w: %s", why, strings.TrimSpace(stderr.String()))
	case crashed(err):
		return console, fmt.Errorf("%w: %w: %s", ErrCrashed, err, strings.TrimSpace(stderr.String()))
	case err != nil:
		return console, fmt.Errorf("running QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return console, nil
}

// ErrCrashed says nothing of the machine: QEMU ended by its own fault, as that of Debian
// 12 was seen to, while a kernel looked for PCI devices.
var ErrCrashed = errors.New("QEMU crashed")

func crashed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && (status.Signal() == syscall.SIGSEGV || status.Signal() == syscall.SIGABRT)
}
