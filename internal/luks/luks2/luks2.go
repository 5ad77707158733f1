// Package luks2 reads, validates, opens, formats and changes LUKS2 headers as the
// "LUKS2 On-Disk Format Specification" describes them and cryptsetup writes them.
//
// A header is input that an attacker may have written: nothing in it is
// authenticated but the volume key. So it is read once, validated as a whole, and
// only the validated copy is used; what is not understood is refused, not guessed.
// Only volumes of one crypt segment in one of a few ciphers (cipher.go) are accepted:
// no integrity, no re-encryption, no detached headers.
//
// Every change is crash-safe: after any prefix of its writes, with the unsynced
// ones torn or reordered, the old or the new header is found and all its keyslots
// work.
//
// Not here: LUKS1, device-mapper, what tokens mean.
//
// What cannot be wiped from here: hash, HMAC and AES states and the blocks of
// Argon2 on the Go heap, and whatever Argon2's own goroutines leave on their
// stacks. Under GOEXPERIMENT=runtimesecret all but the last are erased.
package luks2

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"unlock/internal/hint"
	"unlock/internal/luks/material"
	"unlock/internal/secret"
)

var (
	// ErrNotLUKS: no LUKS2 magic in any place where one may be.
	ErrNotLUKS = errors.New("not a LUKS2 device")
	// ErrInterrupted, which is an ErrNotLUKS: Format was cut short here and nothing
	// was written since, so that it may be repeated without asking further.
	ErrInterrupted = fmt.Errorf("%w: formatting was interrupted before the volume was complete", ErrNotLUKS)
	// ErrPassphrase: keyslots were tried, and none opens with the passphrase.
	ErrPassphrase = hint.New("no keyslot opens with this passphrase",
		"KMS gave a key, but it is not this volume's: check the key source, or add the key with unlockctl enroll; nothing was changed")
	// ErrChanged: the header on the device is no longer the one that was read.
	ErrChanged = hint.New("header was changed by somebody else meanwhile; nothing was written",
		"something else writes to this disk; nothing was formatted")
)

const (
	binSize     = 4096             // binary header, before the JSON area
	sector      = 512              // in which disks write
	alignment   = 4096             // of key areas
	stripes     = material.Stripes // cryptsetup knows no other number
	saltSize    = 32               // of kdfs and digests
	maxKeyslots = 32               // ids of keyslots, tokens and segments are below
	maxDigests  = 8                // ids of digests are below
	maxAreas    = 1 << 27          // bytes of all key areas together
	maxText     = 512 << 10        // bytes of JSON; 32 keyslots and as many tokens take a tenth

	cipherName = "aes-xts-plain64"
)

// headerSizes are the sizes that one copy of a header may have, in bytes; the
// secondary copy lies at the same offset.
var headerSizes = [...]int64{16 << 10, 32 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20}

// Device is what a header is written to: an *os.File opened O_RDWR, or a
// recorder in tests.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Header is a validated header, and the still encrypted key material that goes
// with it. Its methods that change the device must not run concurrently.
type Header struct {
	binary
	doc       object // as on disk, for lossless updates
	meta      metadata
	devSize   int64 // bytes
	limits    Limits
	good      [2]bool // which copies on the device are valid and up to date
	notes     []string
	materials map[int][]byte // key material by keyslot
	copies    [2][]byte      // as they were read; nil for those without a valid checksum
}

// UUID of the volume, lower-case with dashes.
func (h *Header) UUID() string { return h.uuid }

// Label of the volume, possibly empty.
func (h *Header) Label() string { return h.label }

// Notes says what was found amiss but could be worked around, one sentence each.
func (h *Header) Notes() []string { return slices.Clone(h.notes) }

// Damaged reports whether one copy of the header is damaged or out of date.
func (h *Header) Damaged() bool { return h.good != [2]bool{true, true} }

// Keyslots returns the ids of all keyslots, ascending.
func (h *Header) Keyslots() []int {
	var ids []int
	for _, k := range h.meta.keyslots {
		ids = append(ids, k.id)
	}
	return ids
}

// Payload is the encrypted area of a volume and the key to it.
type Payload struct {
	UUID       string
	Type       string        // "LUKS1" or "LUKS2", as in dm uuids
	Cipher     string        // one of Ciphers
	Key        *secret.Bytes // 16, 32 or 64 bytes
	Digest     int           // id of the digest, for the keyring description cryptsetup:UUID-dN
	Offset     int64         // bytes from the start of the device
	Size       int64         // bytes
	SectorSize int           // bytes
	IVOffset   uint64        // in 512-byte sectors
	Flags      []string      // persistent flags: "allow-discards", "no-read-workqueue", …
}

// Wipe wipes the key.
func (p *Payload) Wipe() {
	if p != nil {
		p.Key.Wipe()
	}
}
