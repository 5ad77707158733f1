package lab

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Mark tells by a disk's image how far its formatting got.
type Mark func(image string) bool

// State is true once the header's token says so: "forming", "formed", "ready".
func State(name string) Mark {
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

// PayloadOffset is where the payload begins, in bytes: what is there, mkfs wrote.
const PayloadOffset = 16 << 20

// WrittenFrom is true once anything was written at that offset or behind it.
func WrittenFrom(offset int64) Mark {
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

// Renewed is true once the first sector is not what it was when Renewed was called, if
// a header is there.
func Renewed() Mark {
	was := map[string][]byte{}
	return func(image string) bool {
		f, err := os.Open(image)
		if err != nil {
			return false
		}
		defer f.Close()
		now := make([]byte, 512)
		if _, err := f.ReadAt(now, 0); err != nil {
			return false
		}
		if was[image] == nil {
			was[image] = now
		}
		return !bytes.Equal(was[image], now)
	}
}

// NeverReady checks that power failed before the volume was usable.
func NeverReady(l *Lab) error {
	for _, image := range l.Images() {
		if State("ready")(image) {
			return errors.New("the volume was ready before power failed")
		}
	}
	return nil
}
