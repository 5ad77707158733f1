//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// Do calls f; the stack frames, registers and heap objects that f leaves behind
// are erased by the runtime.
func Do(f func()) { secret.Do(f) }
