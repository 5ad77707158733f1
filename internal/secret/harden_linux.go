package secret

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden makes the process undumpable: no core files (RLIMIT_CORE 0) and no
// reading of its memory by others of the same user (PR_SET_DUMPABLE 0).
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	return nil
}
