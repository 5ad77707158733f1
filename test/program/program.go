// Package program writes programs that tests run.
package program

import (
	"os"
	"path/filepath"
	"syscall"
)

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
