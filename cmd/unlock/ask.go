package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// maxTyped is the longest passphrase that is read, in bytes.
const maxTyped = 512

// asking lets one volume ask at a time.
var asking sync.Mutex

// ask tells why and reads a recovery passphrase: through systemd's agents where
// they run, so that a splash screen does not hide the question, else on the
// console. The caller wipes it.
func ask(volume string, why error) (*secret.Bytes, error) {
	asking.Lock()
	defer asking.Unlock()
	complain(why)
	question := fmt.Sprintf("Recovery passphrase for volume %s:", volume)
	if _, err := os.Stat("/run/systemd/ask-password"); err == nil {
		if tool, err := exec.LookPath("/usr/bin/systemd-ask-password"); err == nil {
			return askSystemd(tool, question)
		}
	}
	return askConsole(question)
}

func askSystemd(tool, question string) (*secret.Bytes, error) {
	cmd := exec.Command(tool, "--timeout=0", question)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s, err := readLine(out)
	if werr := cmd.Wait(); werr != nil && err == nil {
		s.Wipe()
		return nil, fmt.Errorf("systemd-ask-password: %w", werr)
	}
	return s, err
}

func askConsole(question string) (*secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer tty.Close()
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("the console is no terminal: %w", err)
	}
	silent := *old
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ECHONL
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, fmt.Errorf("silencing the console: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETSF, old)
	fmt.Fprintf(tty, "\n%s ", question)
	return readLine(tty)
}

// readLine reads up to a newline or the end of input, byte by byte, so that
// nothing is buffered elsewhere.
func readLine(r io.Reader) (*secret.Bytes, error) {
	s := secret.New(maxTyped)
	for n := range maxTyped {
		_, err := io.ReadFull(r, s.Bytes()[n:n+1])
		if err == nil && s.Bytes()[n] != '\n' {
			continue
		}
		if err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
			s.Wipe()
			return nil, err
		}
		s.Truncate(n)
		return s, nil
	}
	s.Wipe()
	return nil, fmt.Errorf("longer than %d bytes", maxTyped)
}
