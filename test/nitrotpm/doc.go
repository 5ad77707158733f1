// Package nitrotpm is a NitroTPM for tests: a TPM 2.0 between QEMU's
// "-tpmdev emulator" and swtpm, which does all that is TPM 2.0; added are what
// Amazon's has beyond it: a vendor command that writes an attestation document into an
// NV index, and indices of 8 KiB. The PCRs in a document are swtpm's, its signature is
// under a chain of five P-384 certificates as on EC2. It can fail in ways that have
// names.
//
// Authorizations, attributes and locks of the large indices are judged by swtpm, which
// has a small index in the place of each.
//
// It follows TCG's "Trusted Platform Module Library" part 3, swtpm's description of its
// control channel (swtpm_ioctls(3)), and the EC2 User Guide. It never imports the
// packages that are tested with it.
package nitrotpm
