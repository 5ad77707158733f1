package luks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"time"

	luksgo "github.com/anatol/luks.go"
	"golang.org/x/sys/unix"

	"unlock/internal/hint"
	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
)

// LUKS1 is opened by anatol/luks.go, which trusts headers: sizes and iterations
// from the disk make it panic, run for hours or exhaust the memory. So the header
// is validated here, and luks.go sees a private copy of exactly those bytes, runs
// under a deadline, and has its panics caught. Where the payload lies is computed
// here.

const (
	size1     = 592         // bytes of the header
	sector1   = 512         // bytes
	stripes1  = 4000        // of the anti-forensic splitter
	enabled1  = 0x00ac71f3  // keyslot in use
	disabled1 = 0x0000dead  // free keyslot
	maxImage1 = 4 << 20     // bytes of header and key material; cryptsetup's take 2 MiB
	deadline1 = time.Minute // for one keyslot
)

var magic1 = []byte("LUKS\xba\xbe\x00\x01")

// raw1 is the header as it is on disk, big endian (LUKS1 specification, figure 1).
type raw1 struct {
	Magic         [8]byte // version included
	CipherName    [32]byte
	CipherMode    [32]byte
	HashSpec      [32]byte
	PayloadOffset uint32 // sectors
	KeyBytes      uint32
	Digest        [20]byte
	DigestSalt    [32]byte
	DigestIter    uint32
	UUID          [40]byte
	Keyslots      [8]keyslot1
}

type keyslot1 struct {
	Active     uint32
	Iterations uint32
	Salt       [32]byte
	Offset     uint32 // sectors
	Stripes    uint32
}

// header1 is a validated LUKS1 header.
type header1 struct {
	uuid   string
	offset int64  // of the payload, bytes
	size   int64  // of the payload, bytes
	active []int  // keyslots in use
	image  []byte // the device from its start to the end of the key material
}

// read1 returns nil if there is no LUKS1 magic.
func read1(r io.ReaderAt, size int64, lim Limits) (*header1, error) {
	head := make([]byte, size1)
	if n, _ := r.ReadAt(head, 0); n < len(head) || !bytes.HasPrefix(head, magic1) {
		return nil, nil // what cannot be read is left to luks2, which has a second header
	}
	var raw raw1
	if _, err := binary.Decode(head, binary.BigEndian, &raw); err != nil {
		return nil, err
	}
	h, end, err := raw.validate(size, lim)
	if err != nil {
		return nil, err
	}
	h.image = make([]byte, end)
	copy(h.image, head)
	if n, err := r.ReadAt(h.image[size1:], size1); n < len(h.image)-size1 {
		return nil, fmt.Errorf("reading its key material: %w", hint.Disk(err))
	}
	return h, nil
}

// validate returns the header for a device of size bytes, and where its key
// material ends.
func (raw *raw1) validate(size int64, lim Limits) (h *header1, end int64, err error) {
	cipher, mode, hash := text1(raw.CipherName[:]), text1(raw.CipherMode[:]), text1(raw.HashSpec[:])
	if cipher != "aes" || mode != "xts-plain64" {
		return nil, 0, fmt.Errorf("cipher %q in mode %q is not aes in xts-plain64", cipher, mode)
	}
	if !slices.Contains([]string{"sha1", "sha256", "sha512", "ripemd160"}, hash) {
		return nil, 0, fmt.Errorf("hash %q is not supported", hash)
	}
	if raw.KeyBytes != 32 && raw.KeyBytes != 64 {
		return nil, 0, fmt.Errorf("key of %d bytes, not 32 or 64", raw.KeyBytes)
	}
	if n := raw.DigestIter; n < 1 || n > lim.MaxIterations() {
		return nil, 0, fmt.Errorf("digest with %d iterations, not 1 to %d", n, lim.MaxIterations())
	}
	h = &header1{uuid: text1(raw.UUID[:]), offset: int64(raw.PayloadOffset) * sector1}
	if !luks2.ValidUUID(h.uuid) {
		return nil, 0, fmt.Errorf("%q is not a UUID", h.uuid)
	}
	// Free keyslots have a place too, but nothing in it that counts.
	material := int64(raw.KeyBytes) * stripes1
	var areas []int64
	for i, k := range raw.Keyslots {
		switch k.Active {
		case disabled1:
			continue
		case enabled1:
		default:
			return nil, 0, fmt.Errorf("keyslot %d is neither in use nor free", i)
		}
		if k.Stripes != stripes1 {
			return nil, 0, fmt.Errorf("keyslot %d has %d stripes, not %d", i, k.Stripes, stripes1)
		}
		if k.Iterations < 1 {
			return nil, 0, fmt.Errorf("keyslot %d has no iterations", i)
		}
		if k.Iterations <= lim.MaxIterations() { // else it cannot be opened here, but others can
			h.active = append(h.active, i)
		}
		areas = append(areas, int64(k.Offset)*sector1)
	}
	slices.SortFunc(areas, cmp.Compare)
	end = size1
	for _, start := range areas {
		if start < end {
			return nil, 0, fmt.Errorf("key material at byte %d overlaps what is before it", start)
		}
		end = start + material
	}
	switch {
	case end > maxImage1:
		return nil, 0, fmt.Errorf("key material ends at byte %d, beyond %d", end, maxImage1)
	case end > h.offset:
		return nil, 0, fmt.Errorf("payload at byte %d begins before the key material ends, at byte %d", h.offset, end)
	case h.offset >= size:
		return nil, 0, fmt.Errorf("payload at byte %d of a device of %d bytes", h.offset, size)
	}
	h.size = (size - h.offset) / sector1 * sector1
	return h, end, nil
}

// text1 returns the text before the first NUL.
func text1(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// open tries the passphrase on all keyslots. The caller wipes the payload.
func (h *header1) open(ctx context.Context, passphrase *secret.Bytes) (*Payload, error) {
	if len(h.active) == 0 {
		return nil, errors.New("no LUKS1 keyslot to try")
	}
	fd, err := unix.MemfdCreate("luks1-header", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copying the LUKS1 header: %w", err)
	}
	f := os.NewFile(uintptr(fd), "luks1-header")
	defer f.Close()
	if _, err := f.Write(h.image); err != nil {
		return nil, fmt.Errorf("copying the LUKS1 header: %w", err)
	}
	// luks.go wants the payload to begin on the device.
	if err := f.Truncate(h.offset); err != nil {
		return nil, fmt.Errorf("copying the LUKS1 header: %w", err)
	}
	dev, err := luksgo.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("LUKS1 header: %w", err)
	}
	defer dev.Close()
	for _, slot := range h.active {
		key, err := unseal1(ctx, dev, slot, passphrase)
		if errors.Is(err, luksgo.ErrPassphraseDoesNotMatch) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("LUKS1 keyslot %d: %w", slot, err)
		}
		return &Payload{
			UUID: h.uuid, Type: "LUKS1", Cipher: "aes-xts-plain64", Key: key,
			Offset: h.offset, Size: h.size, SectorSize: sector1,
		}, nil
	}
	return nil, ErrPassphrase
}

// unseal1 has luks.go open one keyslot. Nothing can stop its PBKDF2: when ctx or
// the deadline ends first, it goes on in the background until it is done, on a
// passphrase of its own.
func unseal1(ctx context.Context, dev luksgo.Device, slot int, passphrase *secret.Bytes) (*secret.Bytes, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline1)
	defer cancel()
	type result struct {
		key *secret.Bytes
		err error
	}
	done := make(chan result)
	go func() {
		var r result
		own := passphrase.Clone()
		secret.Do(func() { r.key, r.err = contained1(dev, slot, own) })
		own.Wipe()
		select {
		case done <- r:
		case <-ctx.Done():
			r.key.Wipe()
		}
	}()
	select {
	case r := <-done:
		return r.key, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// contained1 turns panics into errors and takes the key out of the library's
// hands.
func contained1(dev luksgo.Device, slot int, passphrase *secret.Bytes) (key *secret.Bytes, err error) {
	defer func() {
		if p := recover(); p != nil {
			key, err = nil, fmt.Errorf("luks.go panicked: %v", p)
		}
	}()
	v, err := dev.UnsealVolume(slot, passphrase.Bytes())
	if err != nil {
		return nil, err
	}
	// The field is private, and only a copy made by reflection can be wiped and
	// given to the kernel's keyring.
	field := reflect.ValueOf(v).Elem().FieldByName("key")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[]byte]() {
		return nil, errors.New("luks.go keeps the volume key elsewhere than this program knows")
	}
	return secret.Take(field.Bytes()), nil
}
