package secret

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Ask shows a question on a terminal, discards what was typed before it, and reads
// a line that the terminal does not show. The caller wipes it. Ask ends with ctx; the
// terminal is left as it was.
func Ask(ctx context.Context, tty *os.File, question string) (*Bytes, error) {
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
	if err := readable(ctx, fd); err != nil {
		fmt.Fprintln(tty)
		return nil, err
	}
	return ReadLine(tty)
}

// readable waits until there is a line to read, which is when poll(2) says so of a
// terminal in canonical mode. A read itself could not be ended.
func readable(ctx context.Context, fd int) error {
	end, wake, err := os.Pipe()
	if err != nil {
		return err
	}
	defer end.Close()
	defer wake.Close()
	defer context.AfterFunc(ctx, func() { wake.Write([]byte{0}) })()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(end.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != unix.EINTR {
			return err
		}
	}
}
