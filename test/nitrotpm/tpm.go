package nitrotpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// TPM is one machine's. Its state lasts from boot to boot.
type TPM struct {
	dir       string
	authority *Authority

	mu     sync.Mutex
	faults map[string]*fault
	struck map[string]int

	indices   map[uint32]*index
	bufferMax int
	swtpm     *os.File // its data channel
}

// New returns a TPM whose state is kept in a directory, which must exist.
func New(dir string, a *Authority) *TPM {
	return &TPM{dir: dir, authority: a, indices: map[uint32]*index{}, struck: map[string]int{}}
}

// Commands of the control channel (swtpm_ioctls(3)).
const (
	cmdInit     = 2
	cmdShutdown = 3
	cmdSetData  = 0x10
)

// start runs swtpm and returns its control channel. stop ends it.
func (t *TPM) start(ctx context.Context) (control *net.UnixConn, stop func() error, err error) {
	path := filepath.Join(t.dir, "swtpm")
	_ = os.Remove(path)
	cmd := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+t.dir, "--ctrl", "type=unixio,path="+path, "--terminate")
	var stderr bytes.Buffer
	cmd.Stderr, cmd.Stdout = &stderr, &stderr
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting swtpm: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() error {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
		return nil
	}
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.(*net.UnixConn), stop, nil
		}
		select {
		case err := <-ended:
			return nil, nil, fmt.Errorf("swtpm ended: %w: %s", err, strings.TrimSpace(stderr.String()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// control sends a command with an argument, and a file descriptor if fd is not negative.
func ask(control *net.UnixConn, cmd uint32, arg []byte, fd int) error {
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if _, _, err := control.WriteMsgUnix(append(be.AppendUint32(nil, cmd), arg...), rights, nil); err != nil {
		return err
	}
	result := make([]byte, 4)
	if _, err := io.ReadFull(control, result); err != nil {
		return err
	}
	if n := be.Uint32(result); n != 0 {
		return fmt.Errorf("command %d of swtpm's control channel: 0x%x", cmd, n)
	}
	return nil
}

// connect gives swtpm a data channel.
func (t *TPM) connect(control *net.UnixConn) error {
	ours, theirs, err := pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	if err := ask(control, cmdSetData, nil, int(theirs.Fd())); err != nil {
		return errors.Join(err, ours.Close())
	}
	t.swtpm = ours
	return nil
}

// pair returns two connected sockets.
func pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a data channel: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "data"), os.NewFile(uintptr(fds[1]), "data"), nil
}

// forward has swtpm carry a command out.
func (t *TPM) forward(raw []byte) ([]byte, error) {
	if _, err := t.swtpm.Write(raw); err != nil {
		return nil, fmt.Errorf("asking swtpm: %w", err)
	}
	answer, err := readMessage(t.swtpm)
	if err != nil {
		return nil, fmt.Errorf("reading swtpm's answer: %w", err)
	}
	return answer, nil
}

// serve answers commands until the machine is gone.
func (t *TPM) serve(machine io.ReadWriter) error {
	for {
		raw, err := readMessage(machine)
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a command: %w", err)
		}
		answer, err := t.answer(raw)
		if err != nil {
			return err
		}
		if _, err := machine.Write(answer); err != nil {
			return nil // the machine is gone
		}
	}
}

// answer carries a command out, or has swtpm do it.
func (t *TPM) answer(raw []byte) ([]byte, error) {
	c, ok := parse(raw)
	if !ok {
		return t.forward(raw)
	}
	switch c.code {
	case ccNVDefineSpace, ccNVWrite, ccNSM:
		time.Sleep(t.delay())
		for name, rc := range map[string]uint32{"retry": rcRetry, "testing": rcTesting, "yielded": rcYielded} {
			if t.strikes(name) {
				return failed(rc), nil
			}
		}
	}
	if t.bufferMax == 0 {
		if err := t.readBufferMax(); err != nil {
			return nil, err
		}
	}
	switch c.code {
	case ccGetCapability:
		return t.capability(c)
	case ccNVDefineSpace:
		return t.define(c)
	case ccNSM:
		return t.nsm(c)
	case ccNVUndefineSpace:
		return t.undefine(c)
	}
	if len(c.handles) == 0 {
		return t.forward(raw)
	}
	x := t.indices[c.handles[len(c.handles)-1]]
	switch {
	case x == nil:
	case c.code == ccNVWrite:
		return t.write(c, x)
	case c.code == ccNVRead:
		answer, err := t.read(c, x)
		if err == nil && code(answer) == rcSuccess && t.strikes("truncated") {
			answer = sized(answer[:len(answer)/2])
		}
		return answer, err
	case c.code == ccNVReadPublic:
		return t.readPublic(c, x)
	}
	return t.forward(raw)
}

// readBufferMax asks swtpm for TPM_PT_NV_BUFFER_MAX.
func (t *TPM) readBufferMax() error {
	b := build(tagNoSessions, ccGetCapability)
	for _, v := range []uint32{capProperties, ptNVBufferMax, 1} {
		b = be.AppendUint32(b, v)
	}
	answer, err := t.forward(sized(b))
	if err != nil {
		return err
	}
	if n := len(answer); code(answer) == rcSuccess && n >= headerSize+17 && be.Uint32(answer[n-8:]) == ptNVBufferMax {
		t.bufferMax = int(be.Uint32(answer[n-4:]))
	}
	return nil // before Startup it does not say
}
