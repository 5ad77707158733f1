//go:build !goexperiment.runtimesecret

package keys_test

// sdkCopies is how many copies of a plaintext's base64 text the SDK may leave:
// the string that it decodes.
const sdkCopies = 1
