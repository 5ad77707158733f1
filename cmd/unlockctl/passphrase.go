package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"unlock/cmd/unlockctl/internal/recovery"
	"unlock/internal/secret"
)

// maxPassphrase is what KMS encrypts at most, in bytes.
const maxPassphrase = 4096

// readSecret returns the content of a file, of standard input for "-", byte for byte
// as cryptsetup --key-file takes it; without a file it asks on the terminal. The
// caller wipes it.
func (c console) readSecret(file, question string) (*secret.Bytes, error) {
	switch file {
	case "":
		return c.ask(question)
	case "-":
		return readAll(c.in, "standard input")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer f.Close()
	return readAll(f, file)
}

func readAll(r io.Reader, name string) (*secret.Bytes, error) {
	s := secret.New(maxPassphrase + 1)
	n, err := io.ReadFull(r, s.Bytes())
	switch {
	case err == nil:
		err = fmt.Errorf("longer than %d bytes", maxPassphrase)
	case errors.Is(err, io.EOF):
		err = errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.Truncate(n)
		return s, nil
	}
	s.Wipe()
	return nil, fmt.Errorf("reading the passphrase from %s: %w", name, err)
}

// ask asks on the terminal, without echo. A recovery key may be typed in any case
// and with or without dashes; slips are told at once.
func (c console) ask(question string) (*secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, usage("no passphrase, and no terminal to ask on", "give --key-file FILE, or --key-file=- for standard input")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("asking on the terminal: %w", err)
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, fmt.Errorf("asking on the terminal: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, old)
	for {
		fmt.Fprint(tty, question+" ")
		typed, err := readLine(tty)
		fmt.Fprintln(tty)
		if err != nil {
			return nil, err
		}
		key, err := recovery.Parse(typed)
		if errors.Is(err, recovery.ErrNoKey) {
			return typed, nil
		}
		typed.Wipe()
		if err == nil {
			return key, nil
		}
		fmt.Fprintln(tty, err)
	}
}

// readLine reads up to a newline, which it drops.
func readLine(r io.Reader) (*secret.Bytes, error) {
	s := secret.New(maxPassphrase)
	in := bufio.NewReaderSize(r, 16)
	for n := 0; n < s.Len(); n++ {
		b, err := in.ReadByte()
		if err != nil {
			s.Wipe()
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		if b == '\n' {
			s.Truncate(n)
			return s, nil
		}
		s.Bytes()[n] = b
	}
	s.Wipe()
	return nil, fmt.Errorf("reading the passphrase: longer than %d bytes", maxPassphrase)
}
