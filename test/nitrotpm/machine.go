package nitrotpm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// This file connects the TPM with a machine: one in QEMU, or a test.

// Plug starts the TPM for one boot of a machine in QEMU and returns the path of the
// socket for its "-chardev socket" of "-tpmdev emulator". unplug ends it, and reports
// what went wrong meanwhile.
func (t *TPM) Plug(ctx context.Context) (socket string, unplug func() error, err error) {
	control, stop, err := t.start(ctx)
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(t.dir, "qemu")
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("waiting for QEMU: %w", err), stop())
	}
	var wg sync.WaitGroup
	var failed error
	var qemu net.Conn
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return // unplugged
		}
		qemu = c
		failed = t.relay(c.(*net.UnixConn), control)
	})
	return socket, func() error {
		l.Close()
		err := stop()
		control.Close()
		wg.Wait()
		if qemu != nil {
			qemu.Close()
		}
		return errors.Join(failed, err)
	}, nil
}

// relay passes the control channel on, but keeps the data channel.
func (t *TPM) relay(qemu, control *net.UnixConn) error {
	defer qemu.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer qemu.Close()
		_, _ = io.Copy(qemu, control) // until swtpm ends
	})
	defer control.Close()
	var data *os.File
	served := make(chan error, 1)
	buf, rights := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	for {
		n, oob, _, _, err := qemu.ReadMsgUnix(buf, rights)
		if err != nil || n == 0 {
			break
		}
		if oob == 0 {
			if _, err := control.Write(buf[:n]); err != nil {
				break
			}
			continue
		}
		file, err := received(rights[:oob])
		if err != nil {
			return err
		}
		ours, theirs, err := pair()
		if err != nil {
			return err
		}
		_, _, err = control.WriteMsgUnix(buf[:n], unix.UnixRights(int(theirs.Fd())), nil)
		theirs.Close()
		if err != nil {
			return fmt.Errorf("giving swtpm its data channel: %w", err)
		}
		t.swtpm, data = ours, file
		go func() {
			err := t.serve(file)
			served <- err
		}()
	}
	if data == nil {
		return nil
	}
	data.Close()
	t.swtpm.Close()
	err := <-served
	if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// received returns the file of a message.
func received(rights []byte) (*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("reading QEMU's data channel: %d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("reading QEMU's data channel: %d files, %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "data"), nil
}

// Dial starts the TPM without a machine: what is written to the connection are commands,
// what is read are their answers, as of /dev/tpm0. It is started up as firmware does.
// Closing it ends the TPM.
func (t *TPM) Dial(ctx context.Context) (io.ReadWriteCloser, error) {
	control, stop, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.connect(control), ask(control, cmdInit, make([]byte, 4), -1)); err != nil {
		return nil, errors.Join(err, stop())
	}
	if answer, err := t.forward(sized(append(build(tagNoSessions, ccStartup), 0, 0))); err != nil || code(answer) != rcSuccess {
		return nil, errors.Join(fmt.Errorf("starting the TPM up: %x, %w", answer, err), stop())
	}
	return &dialled{tpm: t, control: control, stop: stop}, nil
}

// dialled is a TPM that a test talks to. Like the device, it holds one answer.
type dialled struct {
	tpm     *TPM
	control *net.UnixConn
	stop    func() error
	answer  []byte
}

func (d *dialled) Write(raw []byte) (int, error) {
	answer, err := d.tpm.answer(raw)
	if err != nil {
		return 0, err
	}
	d.answer = answer
	return len(raw), nil
}

func (d *dialled) Read(b []byte) (int, error) {
	if len(d.answer) == 0 {
		return 0, io.EOF
	}
	n := copy(b, d.answer)
	d.answer = nil
	return n, nil
}

func (d *dialled) Close() error {
	// An orderly end: NV is written, and no lockout is counted.
	_, _ = d.tpm.forward(sized(append(build(tagNoSessions, ccShutdown), 0, 0)))
	_ = ask(d.control, cmdShutdown, nil, -1)
	d.control.Close()
	d.tpm.swtpm.Close()
	return d.stop()
}

// Leave defines an index before a boot, as something else would have that ran before.
func (t *TPM) Leave(ctx context.Context, number, attributes uint32, size int) error {
	conn, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	const owner = 0x40000001
	area := be.AppendUint32(nil, number)
	area = be.AppendUint16(area, 0x000b)
	area = be.AppendUint32(area, attributes)
	area = be.AppendUint16(area, 0)
	area = be.AppendUint16(area, uint16(size))
	b := be.AppendUint32(build(tagSessions, ccNVDefineSpace), owner)
	b = append(be.AppendUint32(b, 9), 0x40, 0, 0, 9, 0, 0, 0, 0, 0)
	b = append(b, 0, 0) // no password
	b = append(be.AppendUint16(b, uint16(len(area))), area...)
	if _, err := conn.Write(sized(b)); err != nil {
		return errors.Join(err, conn.Close())
	}
	answer := make([]byte, maxCommand)
	if _, err := conn.Read(answer); err != nil || code(answer) != rcSuccess {
		return errors.Join(fmt.Errorf("defining NV index 0x%x: 0x%x, %w", number, code(answer), err), conn.Close())
	}
	return conn.Close()
}

// Has reports whether an index is defined that is larger than swtpm's.
func (t *TPM) Has(number uint32) bool { return t.indices[number] != nil }
