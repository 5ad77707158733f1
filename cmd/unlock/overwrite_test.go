package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOverwriteFree checks that what is taken is within bounds and given back. That
// it finds what IMDS said is for the scenarios secrets-* to see.
func TestOverwriteFree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may fill a socket's buffers beyond their limit")
	}
	taker := &taker{left: 4 << 20, zeros: make([]byte, 32<<10)}
	for _, take := range []func(int) error{taker.pages, taker.pipes, taker.buffers, taker.networkBuffers, taker.buffers} {
		if err := take(1 << 20); err != nil {
			t.Fatal(err)
		}
	}
	if taker.left != 0 || len(taker.mapped) != 1 || len(taker.files) != 7 {
		t.Errorf("left %d bytes, %d mappings, %d files, want 0, 1, 7", taker.left, len(taker.mapped), len(taker.files))
	}
	network := taker.files[len(taker.files)-3] // the last two are the last buffers'
	buffer, got := make([]byte, 4<<10), map[int]int{}
	for { // until it is empty
		n, _, err := unix.Recvfrom(network, buffer, 0)
		if err != nil {
			break
		}
		got[n]++
	}
	for _, size := range smallBuffers {
		if got[size] != fewest {
			t.Errorf("%d buffers for %d bytes, want %d", got[size], size, fewest)
		}
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
