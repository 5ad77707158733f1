package vm

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
)

// Sums returns the SHA-256 of each disk's image, to see whether one has changed.
func Sums(disks []Disk) (string, error) {
	var b strings.Builder
	for _, d := range disks {
		f, err := os.Open(d.File)
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%x\n", h.Sum(nil))
	}
	return b.String(), nil
}
