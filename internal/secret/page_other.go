//go:build !linux

package secret

// newPage returns memory of the heap: on an administrator's machine that is no
// instance, unlockctl seals and no more.
func newPage(n int) ([]byte, error) { return make([]byte, n), nil }

func freePage([]byte) {}
