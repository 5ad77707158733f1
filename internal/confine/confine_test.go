package confine_test

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/confine"
	"unlock/internal/fsys"
)

// confined, when set in the environment, has the test binary confine itself and
// report what it can still do.
const confined = "UNLOCK_TEST_CONFINED"

// report maps what was tried to what came of it.
type report map[string]string

func TestMain(m *testing.M) {
	if args := os.Getenv(confined); args != "" {
		_ = json.NewEncoder(os.Stdout).Encode(tryAll(strings.Split(args, ",")))
		return
	}
	os.Exit(m.Run())
}

// tryAll is given the device that may be opened, another, and a directory for nodes.
func tryAll(args []string) report {
	mine, other, nodes := args[0], args[1], args[2]
	r := report{}
	note := func(what string, err error) {
		r[what] = "done"
		var errno unix.Errno
		if errors.As(err, &errno) {
			r[what] = unix.ErrnoName(errno)
		} else if err != nil {
			r[what] = err.Error()
		}
	}
	open := func(path string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		return err
	}
	listen := func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			l.Close()
		}
		return err
	}
	mount := func() error {
		err := unix.Mount("none", nodes, "tmpfs", 0, "")
		if err == nil {
			err = unix.Unmount(nodes, 0)
		}
		return err
	}
	note("other, before", open(other))
	note("mount, before", mount())
	note("listen, before", listen())
	note("Syscalls", confine.Syscalls())
	note("Devices", confine.Devices([]string{mine}, nodes))
	note("mine", open(mine))
	note("null", open("/dev/null"))
	note("temporary file", os.WriteFile(filepath.Join(os.TempDir(), "unlock-confined"), nil, 0o600))
	_ = os.Remove(filepath.Join(os.TempDir(), "unlock-confined"))
	note("listen", listen())
	note("mount", mount())
	// On every thread, and in a child.
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 50 {
		wg.Go(func() {
			err := open(other)
			mu.Lock()
			defer mu.Unlock()
			note("other", err)
		})
	}
	wg.Wait()
	out, err := exec.Command("dd", "if="+other, "of=/dev/null", "count=1").CombinedOutput()
	note("other, by a child", nil)
	if err != nil && strings.Contains(string(out), "ermission denied") {
		note("other, by a child", unix.EACCES)
	}
	var st unix.Stat_t
	note("stat", unix.Stat(other, &st))
	note("node elsewhere", unix.Mknod(filepath.Join(os.TempDir(), "unlock-node"), unix.S_IFBLK|0o600, int(st.Rdev)))
	note("node", unix.Mknod(filepath.Join(nodes, "node"), unix.S_IFBLK|0o600, int(st.Rdev)))
	_ = os.Remove(filepath.Join(nodes, "node"))
	return r
}

func TestConfined(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have devices to open")
	}
	root := t.TempDir()
	var devices []string
	for _, name := range []string{"/mine", "/other"} {
		l, err := fsys.Attach(root, name, 1<<20, true)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Detach() })
		devices = append(devices, l.Path)
	}
	nodes, err := os.MkdirTemp("/dev", "unlock-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(nodes) })
	// Without cgo, as unlock is built: with it, nothing reaches all threads.
	helper := filepath.Join(root, "helper")
	build := exec.Command("go", "test", "-c", "-o", helper, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building without cgo: %v: %s", err, out)
	}
	cmd := exec.Command(helper)
	cmd.Env = append(os.Environ(), confined+"="+strings.Join(append(devices, nodes), ","))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if strings.Contains(got["Devices"]+got["Syscalls"], confine.ErrUnsupported.Error()) {
		t.Skipf("this kernel lacks Landlock or seccomp: %v", got)
	}
	for what, want := range (report{
		"other, before": "done", "mount, before": "done", "mount": "EPERM", "listen, before": "done", "Syscalls": "done", "Devices": "done",
		"mine": "done", "null": "done", "temporary file": "done", "stat": "done", "node": "done",
		"other": "EACCES", "other, by a child": "EACCES", "node elsewhere": "EACCES", "listen": "EPERM",
	}) {
		if got[what] != want {
			t.Errorf("%s: %s, want %s", what, got[what], want)
		}
	}
}
