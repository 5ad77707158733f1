// Package luks reads, opens, formats and changes LUKS volumes. LUKS2 is our own
// (package luks2); LUKS1 is opened through anatol/luks.go behind a guard. A header
// is input that an attacker may have written: it is parsed once into memory,
// validated, and only that copy is used afterwards.
//
// Nothing here talks to the kernel: a Payload says what device-mapper has to map,
// package dm maps it.
package luks

import (
	"context"
	"io"

	"unlock/internal/secret"
)

// Device is what a header is written to: an *os.File opened O_RDWR, or a
// recorder in tests.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Header is a validated LUKS header.
type Header struct{}

// Limits bound what a header may ask of this machine.
type Limits struct {
	Memory     int64  // bytes for a KDF; 0: half of RAM, at most 4 GiB
	Iterations uint32 // of PBKDF2; 0: 10,000,000
}

// Read reads and validates the header of a device of size bytes. ErrNotLUKS: no
// LUKS magic in any place where one may be. Any other error: it is LUKS, and
// must not be touched.
func Read(r io.ReaderAt, size int64, lim Limits) (*Header, error) { panic("stub") }

func (h *Header) Version() int  { panic("stub") } // 1 or 2
func (h *Header) UUID() string  { panic("stub") }
func (h *Header) Label() string { panic("stub") }

// Notes says what was found amiss but could be worked around ("primary header
// is damaged, using the secondary"); one sentence each.
func (h *Header) Notes() []string { panic("stub") }

// KMS returns the aws-kms token, if there is one (LUKS2 only).
func (h *Header) KMS() (t KMSToken, ok bool, err error) { panic("stub") }

// Set returns the unlock-set token, if there is one (LUKS2 only).
func (h *Header) Set() (t SetToken, ok bool, err error) { panic("stub") }

// Open verifies the passphrase against the keyslots and returns the payload,
// which the caller wipes. ErrPassphrase: no keyslot opens with it.
func (h *Header) Open(ctx context.Context, passphrase *secret.Bytes) (*Payload, error) { panic("stub") }

// Payload is the encrypted area of a volume and the key to it.
type Payload struct {
	UUID       string
	Type       string        // "LUKS1" or "LUKS2", as in dm uuids
	Cipher     string        // "aes-xts-plain64"
	Key        *secret.Bytes // 32 or 64 bytes
	Digest     int           // id of the digest, for the keyring description cryptsetup:UUID-dN
	Offset     int64         // bytes from the start of the device
	Size       int64         // bytes
	SectorSize int           // bytes
	IVOffset   uint64        // in 512-byte sectors
	Flags      []string      // persistent flags: "allow-discards", "no-read-workqueue", …
}

// Wipe wipes the key.
func (p *Payload) Wipe() { panic("stub") }

// FormatOptions of a new LUKS2 volume.
type FormatOptions struct {
	UUID       string // lower-case, with dashes
	Label      string
	Subsystem  string
	SectorSize int      // 512..4096
	Flags      []string // persistent
	Slow       bool     // argon2id, for typed passphrases; else pbkdf2-sha512 with 1000 iterations, for keys of high entropy
	KMS        *KMSToken
	Set        *SetToken
}

// Format writes a new LUKS2 header with one keyslot to a device of size bytes
// and returns it as read back. It does not ask whether the device is blank.
func Format(dev Device, size int64, passphrase *secret.Bytes, o FormatOptions) (*Header, error) {
	panic("stub")
}

// PutSet replaces the unlock-set token, crash-safely.
func (h *Header) PutSet(dev Device, t SetToken) error { panic("stub") }

// Repair rewrites the copy of the header that Read found damaged or stale, if
// there is one; call it only after Open has succeeded.
func (h *Header) Repair(dev Device) error { panic("stub") }
