package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// secretHolder, when set in the environment, has the test binary hold a secret on
// its heap, say where, and stop.
const secretHolder = "UNLOCK_TEST_SECRET"

// runsOn, when set too, has it not stop by itself.
const runsOn = "UNLOCK_TEST_RUNS_ON"

func TestMain(m *testing.M) {
	if seed := os.Getenv(secretHolder); seed != "" {
		secret := []byte(strings.Repeat(seed, 1000))
		fmt.Printf("%p %d\n", secret, len(secret))
		if os.Getenv(runsOn) != "" {
			select {} // as one that waits for a disk
		}
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
		time.Sleep(time.Hour)   // another thread may stop first
		os.Stdout.Write(secret) // not reached
		return
	}
	os.Exit(m.Run())
}

// holder starts a process that holds a secret, and returns it when it has stopped, and
// where the secret is.
func holder(t *testing.T) (cmd *exec.Cmd, line string) {
	t.Helper()
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), secretHolder+"=secret.access.key.")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if !stopped(cmd.Process.Pid, time.Minute) {
		t.Fatal("the process did not stop")
	}
	return cmd, line
}

// TestScrub looks into the memory of a process before and after.
func TestScrub(t *testing.T) {
	cmd, line := holder(t)
	where, size, _ := strings.Cut(strings.TrimSpace(line), " ")
	at, err := strconv.ParseInt(where, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(size)
	if err != nil {
		t.Fatal(err)
	}
	read := func() []byte {
		mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Close()
		b := make([]byte, n)
		if _, err := mem.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := read(); !bytes.HasPrefix(b, []byte("secret.access.key.")) {
		t.Fatalf("memory of the process = %.20q: the test looks in the wrong place", b)
	}
	if err := scrub(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if b := read(); len(bytes.TrimLeft(b, "\x00")) != 0 {
		t.Errorf("memory of the process after scrub = %.20q, want zeros", b)
	}
}

// TestWipeRegisters puts a secret into the vector registers of all threads of a process,
// and looks for it before and after.
func TestWipeRegisters(t *testing.T) {
	cmd, _ := holder(t)
	secret := []byte("secret.access.key.in.a.register.")
	size := map[string]int{"amd64": 512, "arm64": 528}[runtime.GOARCH]
	from := map[string]int{"amd64": 160}[runtime.GOARCH] // XMM0
	find := func() (found, threads int) {
		err := eachThread(cmd.Process.Pid, func(tid int) error {
			b := make([]byte, size)
			_, err := regset(unix.PTRACE_GETREGSET, tid, unix.NT_PRFPREG, b)
			threads++
			if bytes.Contains(b, secret[:16]) {
				found++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found, threads
	}
	err := eachThread(cmd.Process.Pid, func(tid int) error {
		b := make([]byte, size)
		copy(b[from:], bytes.Repeat(secret, 8))
		_, err := regset(unix.PTRACE_SETREGSET, tid, unix.NT_PRFPREG, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found, threads := find(); found < 2 || found != threads {
		t.Fatalf("the secret is in the registers of %d threads of %d, want all", found, threads)
	}
	if err := wipe(cmd.Process.Pid, true); err != nil {
		t.Fatal(err)
	}
	if found, _ := find(); found != 0 {
		t.Errorf("the secret is in the registers of %d threads", found)
	}
}

// TestEnd: a worker that was given up, and goes on, is stopped, overwritten and killed.
func TestEnd(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), secretHolder+"=secret.access.key.", runsOn+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := end(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(unix.Signal(0)); err == nil {
		t.Error("the worker is still there")
	}
}
