package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"unlock/internal/config"
	"unlock/internal/fsys"
)

// shadowFile holds root's line of /etc/shadow, as it was when the image was built, if
// emergency_shell is set.
const shadowFile = "/etc/unlock/shadow"

// sulogin is util-linux's.
const sulogin = "sulogin"

// emergencyShell opens a shell on the console for whoever knows root's password. The
// image's own passwd and shadow may say that root has none.
func emergencyShell(patience time.Duration) error {
	program := fsys.Find(sulogin)
	line, err := os.ReadFile(shadowFile)
	if err != nil || program == "" {
		return errors.Join(err, errors.New("this image cannot offer an emergency shell: rebuild it"))
	}
	if err := errors.Join(setRoot("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644), setRoot("/etc/shadow", line, 0o600)); err != nil {
		return fmt.Errorf("preparing an emergency shell: %w", err)
	}
	cmd := exec.Command(program, "-t", strconv.Itoa(max(1, int(patience.Seconds()))), "/dev/console")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	begun := time.Now()
	if err := cmd.Run(); err != nil && time.Since(begun) < time.Second {
		return fmt.Errorf("opening an emergency shell: %s: %w", sulogin, err) // what a shell ends with says nothing
	}
	return nil
}

// setRoot replaces root's line of a file such as passwd.
func setRoot(file string, line []byte, perm os.FileMode) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	text := bytes.Clone(line)
	for l := range bytes.Lines(old) {
		if !bytes.HasPrefix(l, []byte("root:")) {
			text = append(text, l...)
		}
	}
	return os.WriteFile(file, text, perm)
}

// shadowNeeds lists what an emergency shell needs in the image.
func shadowNeeds(file string) (string, error) {
	fail := func(msg, hint string) (string, error) {
		return "", &config.Error{File: file, Msg: "emergency_shell is set, and " + msg, Hint: hint}
	}
	program := fsys.Find(sulogin)
	if program == "" {
		return fail("sulogin is not on this system", "install it (util-linux), or remove emergency_shell")
	}
	shadow, err := os.ReadFile("/etc/shadow")
	if err != nil {
		return fail(err.Error(), "")
	}
	for line := range bytes.Lines(shadow) {
		f := bytes.Split(line, []byte(":"))
		if string(f[0]) == "root" && len(f) > 1 && len(f[1]) > 2 && f[1][0] == '$' {
			return fmt.Sprintf("program %s\nshadow %s\n", program, shadowFile), nil
		}
	}
	return fail("root has no password", "give root one (passwd root), or remove emergency_shell")
}
