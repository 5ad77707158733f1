package luks2

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	stdbinary "encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Layout of the binary header, big endian (specification, section 2.1):
//
//	0 magic[6] | 6 version u16 | 8 hdr_size u64 | 16 seqid u64 | 24 label[48]
//	72 csum_alg[32] | 104 salt[64] | 168 uuid[40] | 208 subsystem[48]
//	256 hdr_offset u64 | 264 padding | 448 csum[64] | 512 padding to 4096
const (
	offVersion   = 6
	offSize      = 8
	offSeqid     = 16
	offLabel     = 24
	offAlgorithm = 72
	offSalt      = 104
	offUUID      = 168
	offSubsystem = 208
	offOffset    = 256
	offChecksum  = 448
	endChecksum  = 512

	maxLabel = offAlgorithm - offLabel - 1 // bytes, without the final NUL
)

var (
	magicPrimary   = []byte("LUKS\xba\xbe")
	magicSecondary = []byte("SKUL\xba\xbe")
)

// binary is what the binary header says.
type binary struct {
	size      int64 // bytes of one copy, JSON area included
	seqid     uint64
	label     string
	uuid      string
	subsystem string
}

// hasMagic reports whether b starts with the magic of the copy at offset.
func hasMagic(b []byte, offset int64) bool {
	if offset == 0 {
		return bytes.HasPrefix(b, magicPrimary)
	}
	return bytes.HasPrefix(b, magicSecondary)
}

// parseBinary reads the first 4096 bytes of a copy that was found at offset. The
// checksum is not looked at: it covers the JSON area as well.
func parseBinary(b []byte, offset int64) (binary, error) {
	be := stdbinary.BigEndian
	h := binary{seqid: be.Uint64(b[offSeqid:])}
	if v := be.Uint16(b[offVersion:]); v != 2 {
		return h, fmt.Errorf("version %d is not 2", v)
	}
	size := be.Uint64(b[offSize:])
	if size > 1<<62 || !slices.Contains(headerSizes[:], int64(size)) {
		return h, fmt.Errorf("header size %d is none of those that the format knows", size)
	}
	h.size = int64(size)
	if got := be.Uint64(b[offOffset:]); got != uint64(offset) || offset != 0 && offset != h.size {
		return h, fmt.Errorf("header of %d bytes says that it is at byte %d, but is at %d", h.size, got, offset)
	}
	var err error
	if h.label, err = cString(b[offLabel:offAlgorithm]); err != nil {
		return h, fmt.Errorf("label: %w", err)
	}
	if h.uuid, err = cString(b[offUUID:offSubsystem]); err != nil {
		return h, fmt.Errorf("UUID: %w", err)
	}
	if h.subsystem, err = cString(b[offSubsystem:offOffset]); err != nil {
		return h, fmt.Errorf("subsystem: %w", err)
	}
	if alg, err := cString(b[offAlgorithm:offSalt]); err != nil || alg != "sha256" {
		return h, fmt.Errorf("checksum algorithm %q is not sha256", alg)
	}
	return h, nil
}

// cString returns the text before the first NUL of b. It must be printable, as
// it goes to consoles and names of device-mapper devices.
func cString(b []byte) (string, error) {
	s, _, found := bytes.Cut(b, []byte{0})
	if !found {
		return "", errors.New("not terminated")
	}
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return "", errors.New("has control characters")
		}
	}
	return string(s), nil
}

// checksum of a whole copy: over all of it, with the checksum's place zeroed.
func checksum(copy []byte) [sha256.Size]byte {
	sum := sha256.New()
	sum.Write(copy[:offChecksum])
	sum.Write(make([]byte, endChecksum-offChecksum))
	sum.Write(copy[endChecksum:])
	return [sha256.Size]byte(sum.Sum(nil))
}

// checksumValid reports whether a whole copy carries its own checksum.
func checksumValid(copy []byte) bool {
	want := checksum(copy)
	return bytes.Equal(copy[offChecksum:offChecksum+len(want)], want[:])
}

// encode returns the whole copy for offset, with a fresh salt.
func (h binary) encode(offset int64, json []byte) ([]byte, error) {
	if int64(len(json)) >= h.size-binSize {
		return nil, fmt.Errorf("metadata of %d bytes do not fit into an area of %d", len(json), h.size-binSize)
	}
	be := stdbinary.BigEndian
	b := make([]byte, h.size)
	magic := magicPrimary
	if offset != 0 {
		magic = magicSecondary
	}
	copy(b, magic)
	be.PutUint16(b[offVersion:], 2)
	be.PutUint64(b[offSize:], uint64(h.size))
	be.PutUint64(b[offSeqid:], h.seqid)
	copy(b[offLabel:], h.label)
	copy(b[offAlgorithm:], "sha256")
	rand.Read(b[offSalt:offUUID])
	copy(b[offUUID:], h.uuid)
	copy(b[offSubsystem:], h.subsystem)
	be.PutUint64(b[offOffset:], uint64(offset))
	copy(b[binSize:], json)
	sum := checksum(b)
	copy(b[offChecksum:], sum[:])
	return b, nil
}
