package main

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errReady: the cut came too late to be one.
var errReady = errors.New("the volume was ready before power failed")

// mark tells by a disk's image how far its formatting got.
type mark func(image string) bool

// state is true once the header's token says so: "forming", "formed", "ready".
func state(name string) mark {
	return func(image string) bool {
		f, err := os.Open(image)
		if err != nil {
			return false
		}
		defer f.Close()
		header := make([]byte, 32<<10) // two copies of it
		n, _ := f.ReadAt(header, 0)
		return bytes.Contains(header[:n], []byte(`"state":"`+name+`"`))
	}
}

// payloadOffset is where the payload begins, in bytes: what is there, mkfs wrote.
const payloadOffset = 16 << 20

// writtenFrom is true once anything was written at that offset or behind it.
func writtenFrom(offset int64) mark {
	return func(image string) bool {
		f, err := os.Open(image)
		if err != nil {
			return false
		}
		defer f.Close()
		_, err = unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
		return err == nil
	}
}

// neverReady checks that power failed before the volume was usable.
func neverReady(l *lab) error {
	for _, image := range l.images() {
		if state("ready")(image) {
			return errReady
		}
	}
	return nil
}
