package fsys

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountPoint is a place where something is mounted.
type MountPoint struct {
	Dir  string
	Type string // of the file system
}

// Mounts returns where a device is mounted, as far as this process sees it, the last
// first (proc(5), mountinfo).
func Mounts(major, minor uint32) ([]MountPoint, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("looking for mounts: %w", err)
	}
	number := fmt.Sprintf("%d:%d", major, minor)
	var found []MountPoint
	for line := range strings.Lines(string(data)) {
		before, after, _ := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if len(left) < 5 || len(right) < 2 {
			continue
		}
		if left[2] == number || isDevice(unescape(right[1]), major, minor) {
			found = append([]MountPoint{{Dir: unescape(left[4]), Type: right[0]}}, found...)
		}
	}
	return found, nil
}

// isDevice reports whether a mount's source is that device: of btrfs the number in
// mountinfo is none of a device's.
func isDevice(source string, major, minor uint32) bool {
	var st unix.Stat_t
	return strings.HasPrefix(source, "/dev/") && unix.Stat(source, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK &&
		unix.Major(st.Rdev) == major && unix.Minor(st.Rdev) == minor
}

// unescape takes back the octal escapes of mountinfo: of blanks and backslashes.
func unescape(field string) string {
	var b strings.Builder
	for i := 0; i < len(field); i++ {
		if field[i] == '\\' && i+4 <= len(field) {
			if n, err := strconv.ParseUint(field[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(field[i])
	}
	return b.String()
}
