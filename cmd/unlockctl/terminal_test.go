package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/test/program"
)

// onTerminal runs a command on a terminal of its own, types each answer once its
// question is shown, and returns what the terminal showed.
func onTerminal(t *testing.T, cmd *exec.Cmd, typed ...[2]string) (string, error) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	seen := 0 // of what is shown, before the next question
	for buf := make([]byte, 4096); ; {
		n, err := master.Read(buf)
		shown.Write(buf[:n])
		for len(typed) > 0 {
			at := strings.Index(shown.String()[seen:], typed[0][0])
			if at < 0 {
				break
			}
			seen += at + len(typed[0][0])
			line := typed[0][1] + "\n"
			if len(line) == 2 && line[0] < ' ' { // a key such as ^C
				line = line[:1]
			}
			if _, err := master.WriteString(line); err != nil {
				t.Fatal(err)
			}
			typed = typed[1:]
		}
		if err != nil { // EIO, as nobody has the terminal any more
			return shown.String(), cmd.Wait()
		}
	}
}

// luksFile returns a file with a volume that cryptsetup made, and the file with its
// passphrase, which is derived by PBKDF2.
func luksFile(ctx context.Context, t *testing.T, secret, iterations string) (disk, pass string) {
	t.Helper()
	program.Need(t, "cryptsetup")
	dir := t.TempDir()
	disk, pass = filepath.Join(dir, "disk"), filepath.Join(dir, "pass")
	if err := errors.Join(os.WriteFile(pass, []byte(secret), 0o600), os.WriteFile(disk, make([]byte, 20<<20), 0o600)); err != nil {
		t.Fatal(err)
	}
	format := exec.CommandContext(ctx, "cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", iterations, disk, pass)
	if out, err := format.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return disk, pass
}

// TestRecoveryKeyOnTerminal: the passphrase is asked for without echo, the key is
// shown with its QR code, and typed with a slip, then in capitals, it opens the volume.
func TestRecoveryKeyOnTerminal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const secret = "correct horse"
	disk, _ := luksFile(ctx, t, secret, "1000")
	shown, err := onTerminal(t, exec.CommandContext(ctx, "unlockctl", "enroll", "--recovery-key", disk), [2]string{"Passphrase of", secret})
	key := regexp.MustCompile(`([cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8}`).FindString(shown)
	if err != nil || key == "" || strings.Contains(shown, secret) || strings.Count(shown, "\x1b[30;107m") < 15 {
		t.Fatalf("enroll: %v, terminal:\n%s", err, shown)
	}
	const question = "Passphrase or recovery key:"
	shown, err = onTerminal(t, exec.CommandContext(ctx, "unlockctl", "recover", "--test", "--ask", disk),
		[2]string{question, "a" + key[1:]}, [2]string{question, strings.ToUpper(strings.ReplaceAll(key, "-", ""))})
	if err != nil || !strings.Contains(shown, "mistyped recovery key: character 1 is none of") || !strings.Contains(shown, "the key opens it") || strings.Contains(shown, key[2:20]) {
		t.Errorf("recover: %v, terminal:\n%s", err, shown)
	}
}

// TestProgressOnTerminal: what takes over a second says so, with seconds, and takes
// that away again; nobody else than a terminal sees it.
func TestProgressOnTerminal(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: a key that takes seconds is derived three times")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	disk, pass := luksFile(ctx, t, "correct horse", "9000000")
	command := func() *exec.Cmd {
		return exec.CommandContext(ctx, "unlockctl", "recover", "--test", "--key-file", pass, disk)
	}
	shown, err := onTerminal(t, command())
	if err != nil || !strings.Contains(shown, "opening "+disk+" … 1 s") || !strings.Contains(shown, "\r\x1b[K"+disk+": the key opens it") {
		t.Errorf("recover: %v, terminal:\n%q", err, shown)
	}
	out, err := command().CombinedOutput()
	if want := disk + ": the key opens it\n"; err != nil || string(out) != want {
		t.Errorf("recover: %v, %q, want %q", err, out, want)
	}
}

// TestInterrupted: ^C and ^\ end the program while it asks or derives a key, and the
// terminal is as it was.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args   []string
		shown  string // when the key is pressed
		key    string
		status int
	}{
		"at the question":         {[]string{"--ask"}, "recovery key:", "\x03", 130},
		"at the question, by ^\\": {[]string{"--ask"}, "recovery key:", "\x1c", 131},
		"in Argon2":               {[]string{"--key-file=PASS"}, " … 1 s", "\x03", 130},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if testing.Short() && name == "in Argon2" {
				t.Skip("-short: of the places, the questions alone")
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			disk, pass := luksFile(ctx, t, "correct horse", "1000")
			if name == "in Argon2" {
				convert := exec.CommandContext(ctx, "cryptsetup", "luksConvertKey", "--batch-mode", "--pbkdf", "argon2id", "--pbkdf-memory", "65536", "--pbkdf-force-iterations", "60", "--key-file", pass, disk)
				if out, err := convert.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			args := []string{"-c", `trap : INT QUIT; echo ready; unlockctl recover --test "$@"; echo "status $?"; stty -a`, "sh", disk}
			for _, a := range row.args {
				args = append(args, strings.Replace(a, "PASS", pass, 1))
			}
			shown, err := onTerminal(t, exec.CommandContext(ctx, "sh", args...), [2]string{row.shown, row.key})
			if want := fmt.Sprintf("status %d\r\n", row.status); err != nil || !strings.Contains(shown, want) {
				t.Errorf("%v, terminal:\n%s\nwant %q", err, shown, want)
			}
			if !strings.Contains(shown, "unlockctl: interrupted") || strings.Contains(shown, "goroutine") || strings.Contains(shown, "-echo ") {
				t.Errorf("terminal:\n%s", shown)
			}
		})
	}
}

// TestInterruptedReading: so does SIGTERM while a passphrase is read from a pipe that
// nobody writes to.
func TestInterruptedReading(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	disk, _ := luksFile(ctx, t, "correct horse", "1000")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "unlockctl", "recover", "--test", "--key-file", pipe, disk)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // once it has opened the other end
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 143 || stderr.String() != "unlockctl: interrupted (terminated)\n" {
		t.Errorf("exit status %d, %q", got, &stderr)
	}
}
