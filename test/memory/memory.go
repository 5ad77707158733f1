// Package memory reads the memory of the process that calls it, for tests that look for
// what ought to have been wiped there.
package memory

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Pieces calls f with all writable memory of this process, read through buf piece by
// piece; the last overlap bytes of one are the first of the next. What f gets is wiped
// afterwards, or a search would find what it has read.
func Pieces(t *testing.T, buf []byte, overlap int, f func(piece []byte)) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") || strings.Contains(line, "[v") {
			continue
		}
		for at := from; at < to; at += int64(len(buf) - overlap) {
			piece := buf[:min(int64(len(buf)), to-at)]
			if _, err := mem.ReadAt(piece, at); err != nil {
				break
			}
			f(piece)
			clear(piece)
		}
	}
}
