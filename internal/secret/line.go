package secret

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxLine is the longest passphrase that is read as a line, in bytes, as cryptsetup
// has it (DEFAULT_PASSPHRASE_SIZE_MAX).
const maxLine = 512

// Ask shows a question on a terminal, discards what was typed before it, and reads
// a line that the terminal does not show. The caller wipes it.
func Ask(tty *os.File, question string) (*Bytes, error) {
	fd := int(tty.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("no terminal: %w", err)
	}
	silent := *old
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ECHONL
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETSF, &silent); err != nil {
		return nil, fmt.Errorf("silencing the terminal: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETSF, old)
	fmt.Fprint(tty, question, " ")
	return ReadLine(tty)
}

// ReadLine reads up to a newline, which it drops, or the end of input; byte by byte,
// so that nothing is buffered elsewhere. The caller wipes the line.
func ReadLine(r io.Reader) (*Bytes, error) {
	s := New(maxLine)
	for n := range maxLine {
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
	return nil, fmt.Errorf("longer than %d bytes", maxLine)
}
