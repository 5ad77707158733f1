package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/test/memory"
)

// dumpMemory is the program "dump-memory FILE COMMAND...": it runs a command and
// writes what is in its writable memory to a file as it exits.
func dumpMemory() {
	out, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		fatal(err)
	}
	runtime.LockOSThread() // the tracer is a thread
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		fatal(err)
	}
	pid := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		fatal(err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACEEXEC|unix.PTRACE_O_TRACEEXIT|unix.PTRACE_O_EXITKILL); err != nil {
		fatal(err)
	}
	for tid := pid; ; {
		signal := 0
		switch cause := status.TrapCause(); {
		case status.Exited() || status.Signaled():
			if tid == pid {
				os.Exit(max(status.ExitStatus(), 0))
			}
			signal = -1
		case cause == unix.PTRACE_EVENT_EXIT && tid == pid:
			if err := writable(pid, out); err != nil {
				fatal(err)
			}
		case status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			signal = int(status.StopSignal())
		}
		if signal >= 0 {
			unix.PtraceCont(tid, signal) // a thread may be gone by now
		}
		if tid, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
			fatal(err)
		}
	}
}

// writable writes the writable memory of a process.
func writable(pid int, out io.Writer) error {
	return memory.Writable(pid, func(mem io.ReaderAt, from, to int64) error {
		_, err := io.Copy(out, io.NewSectionReader(mem, from, to-from))
		return err
	})
}

// copies counts how often a secret is in memory: as it is, in hexadecimal, in UTF-16
// and in base64 at each offset; its first and its last 16 bytes.
func copies(memory, secret []byte) int {
	n := 0
	for _, part := range [][]byte{secret[:16], secret[len(secret)-16:]} {
		forms := [][]byte{part, []byte(hex.EncodeToString(part))}
		var wide []byte
		for _, b := range part {
			wide = append(wide, b, 0)
		}
		forms = append(forms, wide)
		for shift := range 3 {
			text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), part...))
			forms = append(forms, []byte(text[4:len(text)-4]))
		}
		for _, f := range forms {
			n += bytes.Count(memory, f)
		}
	}
	return n
}

// TestMemory searches the memory of each command as it exits for the secrets that
// passed through it.
func TestMemory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("unlockctl's memory is for root alone to read")
	}
	r := newRotation(t, "")
	const place = "s3://a-bucket/sealed"
	typed := []byte("a long passphrase that somebody typed once upon a time")
	if err := os.WriteFile(filepath.Join(r.dir, "own"), typed, 0o600); err != nil {
		t.Fatal(err)
	}
	r.must(t, nil, "cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf", "argon2id", "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4", "--key-file", "typed", "disk", "own")
	sealed := func() []byte {
		p, err := r.cloud.Decrypt(r.key, r.cloud.Object("a-bucket", "sealed"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	header := func() []byte { return r.published(t) }
	for _, row := range []struct {
		name    string
		args    []string
		secrets map[string]func() []byte // as they are after it
	}{
		{"seal", []string{"seal", "--kms-key", r.key, place}, map[string]func() []byte{"passphrase": sealed}},
		{"seal a file", []string{"seal", "--kms-key", r.key, "--passphrase", "own", "file:" + r.dir + "/x"}, map[string]func() []byte{"passphrase": nil}},
		{"recover", []string{"recover", "--test", "--kms-key", r.key, "disk"}, map[string]func() []byte{"data key": header}},
		{"recover, typed", []string{"recover", "--test", "--key-file", "own", "disk"}, nil},
		{"enroll sealed", []string{"enroll", "--kms-key", r.key, "--sealed", place, "--key-file", "own", "disk"}, map[string]func() []byte{"passphrase": sealed}},
		{"enroll a recovery key", []string{"enroll", "--recovery-key", "--key-file", "own", "disk"}, nil},
		{"rotate", []string{"rotate", "--passphrase", "--kms-key", r.key, "disk"}, map[string]func() []byte{"data key": header}},
		{"rotate sealed", []string{"rotate", "--passphrase", "--kms-key", r.key, "--sealed", place, "disk"}, map[string]func() []byte{"passphrase": sealed}},
	} {
		secrets := map[string][]byte{"typed passphrase": typed}
		for name, f := range row.secrets {
			if f != nil && !strings.HasPrefix(row.name, "seal") {
				secrets["old "+name] = f()
			}
		}
		out := r.must(t, nil, append([]string{"dump-memory", "memory", "unlockctl"}, row.args...)...)
		for name, f := range row.secrets {
			if f != nil {
				secrets[name] = f()
			}
		}
		if strings.Contains(row.name, "recovery") {
			secrets["recovery key"] = bytes.TrimSpace(out)
		}
		memory, err := os.ReadFile(filepath.Join(r.dir, "memory"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(memory, []byte("unlockctl")) {
			t.Fatal("the search finds nothing at all")
		}
		for name, secret := range secrets {
			if n := copies(memory, secret); n > 0 {
				t.Errorf("%s: %d copies of the %s", row.name, n, name)
			}
			if raw, err := base64.StdEncoding.DecodeString(string(secret)); err == nil {
				if n := copies(memory, raw); n > 0 {
					t.Errorf("%s: %d copies of the %s, decoded", row.name, n, name)
				}
			}
		}
	}
}
