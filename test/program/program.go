// Package program has what tests share about programs: those that they write, and those that
// they run.
package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Administrators' programs are found as root finds them, whoever runs the tests.
func init() { os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") }

// Write writes a file of that mode, and the directories that it is in, so that it can be run
// at once. Linux runs no file that somebody has open for writing (ETXTBSY): a program that
// another test starts meanwhile would inherit it from the test, if only for a moment.
func Write(file, text string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return os.WriteFile(file, []byte(text), mode)
}

// Need skips a test where Lacks says that the program is missing.
func Need(t testing.TB, name string) {
	t.Helper()
	if lacks, err := Lacks(name); err != nil {
		t.Fatal(err)
	} else if lacks {
		t.Skip(name, "is not in $PATH")
	}
}

// Lacks reports whether a program is missing on this machine, so that what needs it is to be
// skipped. With UNLOCK_NEED_ALL set, as in CI where nobody would miss what is skipped, that is
// an error.
func Lacks(name string) (bool, error) {
	_, err := exec.LookPath(name)
	if err != nil && os.Getenv("UNLOCK_NEED_ALL") == "" {
		return true, nil
	}
	return err != nil, err
}

// Run runs a script of the shell, and fails the test if it fails. Where the shell has not found a
// program, it does as Need.
func Run(t testing.TB, script *exec.Cmd) {
	t.Helper()
	out, err := script.CombinedOutput()
	if script.ProcessState.ExitCode() == 127 && os.Getenv("UNLOCK_NEED_ALL") == "" {
		t.Skipf("%s", out)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", script.Args, err, out)
	}
}
