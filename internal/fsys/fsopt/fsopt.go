// Package fsopt understands the options of file systems: those with which they are
// mounted (mount(8), fstab(5), and the kernel's of each type), and those with which
// they are made (mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8), mkswap(8)). What it takes has
// been seen to work; what it refuses would fail only when a volume is formatted already.
//
// It touches nothing, and runs wherever a configuration is read.
package fsopt

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"unlock/internal/hint"
)

// MountTypes are the types of file systems that can be mounted.
var MountTypes = []string{"ext4", "ext3", "xfs", "btrfs"}

// Driver is the kernel module of a type.
func Driver(fstype string) string {
	if fstype == "ext3" {
		return "ext4" // since Linux 4.3
	}
	return fstype
}

// A value is written as a list, "a|b|c", or as one of
const (
	none    = ""      // there must be no value
	number  = "n"     // 0 to 2,147,483,647
	count   = "1"     // the same from 1 on
	size    = "k"     // a number, which may end in k, m or g
	percent = "%"     // 0 to 50
	path    = "path"  // of a subvolume
	label   = "label" // followed by the most bytes that it may have
	onOff   = "0|1"
	maybe   = "?" // before others: the value may be left out
)

// valid reports whether a value is one of kind; given says that there is one.
func valid(kind, value string, given bool) bool {
	if rest, ok := strings.CutPrefix(kind, maybe); ok {
		if !given {
			return true
		}
		kind = rest
	}
	if given == (kind == none) {
		return false
	}
	if most, ok := strings.CutPrefix(kind, label); ok {
		n, _ := strconv.Atoi(most)
		return value != "" && len(value) <= n && value[0] != '-' && strings.IndexFunc(value, unusual) < 0
	}
	switch kind {
	case none:
		return true
	case path:
		return value != "" && strings.IndexFunc(value, func(r rune) bool { return unusual(r) && r != '/' && r != '@' }) < 0
	case size:
		if n := len(value) - 1; n > 0 && strings.ContainsRune("kKmMgG", rune(value[n])) {
			value = value[:n]
		}
		fallthrough
	case number, count:
		n, err := strconv.ParseUint(value, 10, 31)
		return err == nil && strconv.FormatUint(n, 10) == value && (kind != count || n > 0)
	case percent:
		n, err := strconv.ParseUint(value, 10, 31)
		return err == nil && n <= 50
	}
	return slices.Contains(strings.Split(kind, "|"), value)
}

// unusual characters are none of a label's.
func unusual(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
}

// values says what a kind takes, for messages.
func values(kind string) string {
	kind = strings.TrimPrefix(kind, maybe)
	if most, ok := strings.CutPrefix(kind, label); ok {
		return "up to " + most + " letters, digits, '.', '_' and '-'"
	}
	switch kind {
	case none:
		return "no value"
	case path:
		return "the path of a subvolume"
	case number:
		return "a number"
	case count:
		return "a number from 1 on"
	case size:
		return "a size such as 64k"
	case percent:
		return "a number from 0 to 50"
	}
	return strings.ReplaceAll(kind, "|", ", ")
}

func refuse(advice, format string, args ...any) error {
	return hint.With(fmt.Errorf(format, args...), advice)
}
