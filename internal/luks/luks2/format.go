package luks2

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"unlock/internal/luks/material"
	"unlock/internal/secret"
)

const (
	formatHeader = 16 << 10 // bytes of one copy
	formatData   = 16 << 20 // data offset, bytes; keyslots fill what is between
	formatKey    = 64       // bytes: AES-256-XTS
)

// MinSize is the size in bytes of the smallest device that Format takes.
const MinSize = formatData + 4096

// FormatOptions of a new volume.
type FormatOptions struct {
	UUID       string // lower-case, with dashes
	Label      string // at most 47 bytes
	Subsystem  string // at most 47 bytes
	SectorSize int    // 512, 1024, 2048 or 4096
	Flags      []string
	Over       Over              // what the device held before
	Slow       bool              // argon2id, for typed passphrases
	Tokens     []json.RawMessage // ids from 0
	Limits     Limits            // of argon2id, and of what is read back
}

// The JSON of a new header, in cryptsetup's order of members.
type (
	jsonKDF struct {
		Type       string `json:"type"`
		Hash       string `json:"hash,omitempty"`
		Iterations uint32 `json:"iterations,omitempty"`
		Time       uint32 `json:"time,omitempty"`
		Memory     uint32 `json:"memory,omitempty"`
		CPUs       uint32 `json:"cpus,omitempty"`
		Salt       []byte `json:"salt"`
	}
	jsonAF struct {
		Type    string `json:"type"`
		Stripes int    `json:"stripes"`
		Hash    string `json:"hash"`
	}
	jsonArea struct {
		Type       string `json:"type"`
		Offset     int64  `json:"offset,string"`
		Size       int64  `json:"size,string"`
		Encryption string `json:"encryption"`
		KeySize    int    `json:"key_size"`
	}
	jsonKeyslot struct {
		Type    string   `json:"type"`
		KeySize int      `json:"key_size"`
		AF      jsonAF   `json:"af"`
		Area    jsonArea `json:"area"`
		KDF     jsonKDF  `json:"kdf"`
	}
	jsonSegment struct {
		Type       string `json:"type"`
		Offset     string `json:"offset"`
		Size       string `json:"size"`
		IVTweak    string `json:"iv_tweak"`
		Encryption string `json:"encryption"`
		SectorSize int    `json:"sector_size"`
	}
	jsonDigest struct {
		Type       string   `json:"type"`
		Keyslots   []string `json:"keyslots"`
		Segments   []string `json:"segments"`
		Hash       string   `json:"hash"`
		Iterations uint32   `json:"iterations"`
		Salt       []byte   `json:"salt"`
		Digest     []byte   `json:"digest"`
	}
	jsonConfig struct {
		JSONSize     string   `json:"json_size"`
		KeyslotsSize string   `json:"keyslots_size"`
		Flags        []string `json:"flags,omitempty"`
	}
)

// newKDF returns the parameters for a new keyslot: pbkdf2-sha512 with cryptsetup's
// minimum of 1000 iterations, which is enough for a key of high entropy, or, slow,
// argon2id over up to 1 GiB as cryptsetup's default.
func newKDF(slow bool, lim Limits, salt []byte) kdf {
	if slow {
		return kdf{name: "argon2id", time: 4, memory: uint32(min(1<<20, lim.memory()>>10)), cpus: 4, salt: salt}
	}
	return kdf{name: "pbkdf2", hash: "sha512", iterations: 1000, salt: salt}
}

// newKeyslot seals key under the passphrase of d for an area at offset. It returns
// the JSON and the key material, material.Size bytes.
func newKeyslot(key *secret.Bytes, d *Deriver, offset int64, slow bool, lim Limits) (js json.RawMessage, area []byte, err error) {
	k := newKDF(slow, lim, d.salt)
	secret.Do(func() {
		var kek *secret.Bytes
		if kek, err = d.derive(context.Background(), k, formatKey); err == nil {
			area, err = material.Seal(key.Bytes(), kek.Bytes(), newHash("sha256"))
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return encode(jsonKeyslot{
		Type: "luks2", KeySize: key.Len(),
		AF:   jsonAF{"luks1", stripes, "sha256"},
		Area: jsonArea{"raw", offset, roundUp(int64(len(area))), cipherName, formatKey},
		KDF:  jsonKDF{k.name, k.hash, k.iterations, k.time, k.memory, k.cpus, k.salt},
	}), area, nil
}

// newDigest returns the digest of key, which is that of keyslot 0 and segment 0.
func newDigest(key *secret.Bytes) (json.RawMessage, error) {
	k := newKDF(false, Limits{}, newSalt())
	k.hash = "sha256"
	sum := make([]byte, 32)
	err := k.derive(context.Background(), key, sum)
	return encode(jsonDigest{
		Type: "pbkdf2", Keyslots: []string{"0"}, Segments: []string{"0"},
		Hash: k.hash, Iterations: k.iterations, Salt: k.salt, Digest: sum,
	}), err
}

// Format writes a new header with one keyslot to a device of size bytes and
// returns it as read back. It does not ask what is on the device. After a crash
// there is the old header, whole, or the new one, whole, or none, for which Read
// returns an *Interrupted.
func Format(dev Device, size int64, passphrase *secret.Bytes, o FormatOptions) (*Header, error) {
	d := NewDeriver(passphrase)
	defer d.Wipe()
	return FormatWith(dev, size, d, o)
}

// FormatWith is Format for one of several volumes that share a passphrase.
func FormatWith(dev Device, size int64, d *Deriver, o FormatOptions) (*Header, error) {
	if d.passphrase.Len() == 0 {
		return nil, errors.New("empty passphrase")
	}
	if len(o.Label) > maxLabel || len(o.Subsystem) > maxLabel {
		return nil, fmt.Errorf("label %q or subsystem %q is longer than %d bytes", o.Label, o.Subsystem, maxLabel)
	}
	if size < MinSize {
		return nil, fmt.Errorf("device of %d bytes is too small; the header takes %d", size, formatData)
	}
	key := secret.New(formatKey)
	defer key.Wipe()
	rand.Read(key.Bytes())

	slot, area, err := newKeyslot(key, d, 2*formatHeader, o.Slow, o.Limits)
	if err != nil {
		return nil, err
	}
	digest, err := newDigest(key)
	if err != nil {
		return nil, err
	}
	tokens := object{}
	for i, t := range o.Tokens {
		tokens = append(tokens, member{strconv.Itoa(i), t})
	}
	one := func(v json.RawMessage) json.RawMessage { return object{{"0", v}}.encode() }
	doc := object{
		{"keyslots", one(slot)},
		{"tokens", tokens.encode()},
		{"segments", one(encode(jsonSegment{"crypt", strconv.Itoa(formatData), "dynamic", "0", cipherName, o.SectorSize}))},
		{"digests", one(digest)},
		{"config", encode(jsonConfig{strconv.Itoa(formatHeader - binSize), strconv.Itoa(formatData - 2*formatHeader), o.Flags})},
	}
	bin := binary{size: formatHeader, seqid: 1, label: o.Label, uuid: o.UUID, subsystem: o.Subsystem}
	h, err := rehearse(bin, doc, size, o.Limits)
	if err != nil {
		return nil, err
	}
	if len(h.notes) > 0 {
		return nil, fmt.Errorf("refusing to write a LUKS2 header: %s", h.notes[0])
	}

	unlock, err := lock(dev)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := erase(dev, o.Over); err != nil {
		return nil, fmt.Errorf("erasing old headers: %w", err)
	}
	if err := writeAt(dev, area, 2*formatHeader); err != nil {
		return nil, fmt.Errorf("key material: %w", err)
	}
	for _, i := range [2]int{1, 0} {
		if err := h.writeCopy(dev, i); err != nil {
			return nil, fmt.Errorf("LUKS2 header: %w", err)
		}
	}
	back, err := Read(dev, size, o.Limits)
	if err != nil {
		return nil, fmt.Errorf("reading back the new LUKS2 header: %w", err)
	}
	if back.Damaged() || back.binary != h.binary || !bytes.Equal(back.doc.encode(), doc.encode()) || !bytes.Equal(back.materials[0], area) {
		return nil, errors.New("the device did not keep what was written to it")
	}
	return back, nil
}
