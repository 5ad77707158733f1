// Package memory reads the memory of processes, for tests that look for what ought to
// have been wiped there.
package memory

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// Pieces calls f with all writable memory of this process, read through buf piece by
// piece; the last overlap bytes of one are the first of the next. What f gets is wiped
// afterwards, or a search would find what it has read.
func Pieces(t *testing.T, buf []byte, overlap int, f func(piece []byte)) {
	t.Helper()
	err := Writable(os.Getpid(), func(mem io.ReaderAt, from, to int64) error {
		for at := from; at < to; at += int64(len(buf) - overlap) {
			piece := buf[:min(int64(len(buf)), to-at)]
			if _, err := mem.ReadAt(piece, at); err != nil {
				break
			}
			f(piece)
			clear(piece)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Writable calls f for each range of a process's writable memory, until it returns an
// error.
func Writable(pid int, f func(mem io.ReaderAt, from, to int64) error) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return err
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || strings.Contains(line, "[v") {
			continue
		}
		if err := f(mem, from, to); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}
