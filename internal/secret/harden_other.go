//go:build !linux

package secret

// Harden does nothing here.
func Harden() error { return nil }
