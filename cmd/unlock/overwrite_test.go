package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOverwriteFree checks that what is taken is within bounds and given back. That
// it finds what IMDS said is for the scenarios secrets-* to see.
func TestOverwriteFree(t *testing.T) {
	taker := &taker{left: 3 << 20}
	for range 3 {
		if err := taker.pages(1 << 20); err != nil {
			t.Fatal(err)
		}
	}
	if err := taker.buffers(1 << 20); err != nil {
		t.Fatal(err)
	}
	if taker.left != 0 || len(taker.mapped) != 3 {
		t.Errorf("left %d bytes after %d mappings, want 0 after 3", taker.left, len(taker.mapped))
	}
	taker.giveBack()

	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := overwriteFree(); err != nil {
		t.Fatal(err)
	}
	t.Logf("overwrote free memory in %v", time.Since(start))
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("processors %v, %v, want %v", after, err, before)
	}
}
