//go:build goexperiment.runtimesecret

package luks_test

// erased reports whether the runtime erases what secret.Do leaves behind.
const erased = true
