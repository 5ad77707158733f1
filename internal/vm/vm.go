// Package vm boots machines in QEMU for the scenarios of scripts/qemu-test and
// for the demonstration: a q35 machine without acceleration, NVMe disks from
// image files, a network card that a Go program serves, and the console, line by
// line. Running a machine needs no root. It also fetches and caches the kernel
// and makes the real root that they boot.
package vm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Machine is a machine to boot once.
type Machine struct {
	Kernel  string               // image of the kernel
	Initrd  string               // image of the initramfs
	Append  string               // kernel command line, after "console=ttyS0 panic=-1 no_timer_check"
	Memory  int                  // MiB; 0: 1024
	Disks   []Disk               // NVMe disks, in this order
	Root    string               // ext4 image, seen as /dev/vda; what the machine writes is thrown away; "": none
	Script  string               // what the image of Root runs after the pivot, seen as /dev/vdb
	Plug    func(net.Conn) error // serves the network card (QEMU's stream framing) until the connection ends; nil: no card
	Timeout time.Duration        // 0: 3 min
	Cut     string               // power fails once the console shows this; "": it does not
	CutWait time.Duration        // and this much later
	Output  io.Writer            // gets the console as it comes; may be nil
}

// Disk is an NVMe disk.
type Disk struct {
	File   string // raw image
	Serial string // "AWS…" is an instance-store disk to unlock
	Late   string // attached once the console shows this; "": from the beginning
}

// Serial returns the serial number of the instance-store disk number n.
func Serial(n int) string { return fmt.Sprintf("AWS%017X", 0x0123456789ABCDEF0+n) }

// Console is what a machine printed.
type Console []Line

// Line is one line of the console.
type Line struct {
	At   time.Duration // since QEMU was started
	Text string        // without control characters
}

// String returns the text, each line with its time in seconds.
func (c Console) String() string {
	var b strings.Builder
	for _, l := range c {
		fmt.Fprintf(&b, "%7.3f  %s\n", l.At.Seconds(), l.Text)
	}
	return b.String()
}

// Tail returns the last n lines.
func (c Console) Tail(n int) Console { return c[max(0, len(c)-n):] }

// Contains says whether a line contains text.
func (c Console) Contains(text string) bool {
	for _, l := range c {
		if strings.Contains(l.Text, text) {
			return true
		}
	}
	return false
}

// Run boots the machine and waits until it powers off or reboots, which ends it
// too, or until its power fails. The Console is valid, as far as it goes, even with an error.
func (m *Machine) Run(ctx context.Context) (Console, error) {
	timeout := m.Timeout
	if timeout == 0 {
		timeout = 3 * time.Minute
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
	if m.Plug != nil {
		unplug, err := m.plug(filepath.Join(dir, "net"))
		if err != nil {
			return nil, err
		}
		defer unplug()
	}
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+dir) // of the snapshot
	cmd.WaitDelay = 5 * time.Second
	// The machine dies with this program, however that dies. The kernel means the
	// thread that started it, which therefore has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a machine: %w", err)
	}
	var cut atomic.Bool
	var plugErr error
	console := m.read(out, time.Now(), func() {
		cut.Store(true)
		_ = cmd.Process.Kill() // it may have ended meanwhile
	}, func(disk int) {
		if plugErr = m.hotplug(filepath.Join(dir, "qmp"), disk); plugErr != nil {
			_ = cmd.Process.Kill()
		}
	})
	err = cmd.Wait()
	if plugErr != nil {
		return console, plugErr
	}
	if cut.Load() {
		return console, nil
	}
	if ctx.Err() != nil {
		return console, fmt.Errorf("the machine did not end within %v: %w", timeout, ctx.Err())
	}
	if err != nil {
		return console, fmt.Errorf("running QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return console, nil
}

func (m *Machine) args(dir string) ([]string, error) {
	a := []string{
		"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-qmp", "unix:" + escape(filepath.Join(dir, "qmp")) + ",server=on,wait=off",
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(cmp.Or(m.Memory, 1024)),
		"-device", "virtio-rng-pci",
		// On a busy host the kernel takes QEMU's timer for broken, and panics.
		"-kernel", m.Kernel, "-initrd", m.Initrd, "-append", "console=ttyS0 panic=-1 no_timer_check " + m.Append,
	}
	for i, d := range m.Disks {
		a = append(a, "-drive", fmt.Sprintf("if=none,id=nvme%d,format=raw,file=%s", i, escape(d.File)), "-device")
		if d.Late != "" {
			a = append(a, fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d", i, i+1)) // a slot to plug it into
		} else {
			a = append(a, fmt.Sprintf("nvme,drive=nvme%d,serial=%s", i, d.Serial))
		}
	}
	if m.Root != "" {
		script := filepath.Join(dir, "script")
		if err := os.WriteFile(script, sectors(m.Script), 0o600); err != nil {
			return nil, fmt.Errorf("writing the machine's script: %w", err)
		}
		a = append(a, "-drive", "if=virtio,format=raw,snapshot=on,file="+escape(m.Root),
			"-drive", "if=virtio,format=raw,read-only=on,file="+escape(script))
	}
	if m.Plug != nil {
		a = append(a, "-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path="+escape(filepath.Join(dir, "net")),
			"-device", "virtio-net-pci,netdev=net0,host_mtu=9001")
	}
	return a, nil
}

// sectors returns text as a disk's content: whole sectors, at least one.
func sectors(text string) []byte {
	const sector = 512
	b := make([]byte, (len(text)/sector+1)*sector)
	copy(b, text)
	return b
}

// escape protects a file name in a comma-separated option of QEMU.
func escape(file string) string { return strings.ReplaceAll(file, ",", ",,") }

// plug listens for QEMU's connection and serves it. The returned function ends both.
func (m *Machine) plug(socket string) (unplug func(), err error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("plugging in the network card: %w", err)
	}
	done := make(chan struct{})
	conns := make(chan net.Conn, 1)
	go func() {
		defer close(done)
		defer close(conns)
		conn, err := l.Accept()
		if err != nil {
			return // closed: QEMU never came
		}
		conns <- conn
		_ = m.Plug(conn) // it ends when the machine does
	}()
	return func() {
		l.Close()
		if conn, ok := <-conns; ok {
			conn.Close()
		}
		<-done
	}, nil
}

// read collects the console. When a line asks for it, it calls cut, after a
// while, and hotplug.
func (m *Machine) read(r io.Reader, start time.Time, cut func(), hotplug func(disk int)) Console {
	var c Console
	plugged := map[int]bool{}
	var power *time.Timer
	defer func() {
		if power != nil {
			power.Stop()
		}
	}()
	in := bufio.NewReader(r)
	for {
		text, err := in.ReadString('\n')
		if text != "" {
			l := Line{At: time.Since(start), Text: printable(text)}
			c = append(c, l)
			if m.Cut != "" && power == nil && strings.Contains(l.Text, m.Cut) {
				power = time.AfterFunc(m.CutWait, cut)
			}
			for i, d := range m.Disks {
				if d.Late != "" && !plugged[i] && strings.Contains(l.Text, d.Late) {
					plugged[i] = true
					hotplug(i)
				}
			}
			if m.Output != nil {
				fmt.Fprintln(m.Output, l.Text)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				c = append(c, Line{At: time.Since(start), Text: "console: " + err.Error()})
			}
			return c
		}
	}
}

// printable drops control characters and the escape sequences of the firmware.
func printable(text string) string {
	var b strings.Builder
	escape := false
	for _, r := range text {
		switch {
		case r == '\x1b':
			escape = true
		case escape:
			escape = r == '[' || r == ';' || r >= '0' && r <= '9' || r == '?' || r == '='
		case r >= ' ' || r == '\t':
			b.WriteRune(r)
		}
	}
	return b.String()
}
