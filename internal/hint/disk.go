package hint

import (
	"errors"
	"syscall"
)

// DiskFails is the advice on a disk that cannot be read or written to.
const DiskFails = "look at the kernel's messages for the disk; replace the instance if it fails"

// Disk returns an error of reading or writing a disk, with advice if the disk itself
// is at fault (EIO).
func Disk(err error) error {
	if errors.Is(err, syscall.EIO) {
		return With(err, DiskFails)
	}
	return err
}
