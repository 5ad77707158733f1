package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"unlock/internal/secret"
)

// prompt asks for a recovery passphrase: through systemd's agents where they run, so
// that a splash screen does not hide the question, else on the console. The caller
// wipes it.
func prompt(question string) (*secret.Bytes, error) {
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
	s, err := secret.ReadLine(out)
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
	fmt.Fprintln(tty)
	return secret.Ask(context.Background(), tty, question)
}
