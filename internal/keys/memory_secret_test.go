//go:build goexperiment.runtimesecret

package keys_test

// sdkCopies is how many copies of a plaintext's base64 text the SDK may leave,
// where the runtime erases what it allocated.
const sdkCopies = 0
