package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"unlock/internal/luks/luks2"
)

const (
	mib       = 1 << 20
	chunkSize = 64 << 10 // bytes read at once; what is looked at never crosses one
)

// Unopened is the content of a disk that could not be opened.
func Unopened(err error) Content {
	return Content{What: fmt.Sprintf("opening it: %v", reason(err))}
}

// Probe reads what is on a device of size bytes: at most 3.5 MiB of it, in fewer than
// 300 pieces, and 18 MiB more where unlock was interrupted.
//
// A primary LUKS header makes it LUKS, whatever else is there, except in a member
// of an md array, which may begin with what the array holds. A second header
// alone makes it LUKS if there is no other signature, because a file system may
// have been made over the rest of a volume. Where unlock was formatting, it is LUKS if
// a header is valid, or else begun if there is nothing that Format has not written. A
// disk is blank if every place that is read is zero: the first and the last MiB (of a
// smaller one: all of it), wherever else libblkid 2.38 to 2.42 looks for signatures,
// and the samples of places.go. Everything else is foreign, and what cannot be read in
// full is unreadable.
func Probe(r io.ReaderAt, size int64) Content {
	img, err := readImage(r, size)
	if err != nil {
		return Content{What: err.Error()}
	}
	if c, ok := img.match(mdAtEnd(size)); ok {
		return c
	}
	if c, ok := img.luksPrimary(); ok {
		return c
	}
	second, hasSecond := img.luksSecondary()
	var interrupted *luks2.Interrupted
	if _, ok := luks2.Marked(img.at(0, luksHeaderSize)); ok {
		_, err := luks2.Read(r, size, luks2.Limits{})
		if errors.As(err, &interrupted) {
			hasSecond = false // its first sector, at most
		}
	}
	for _, s := range signatures(size) {
		if (hasSecond || interrupted != nil) && s.weak() {
			continue // two bytes are there by chance more easily than a header
		}
		c, ok := img.match(s)
		if ok && hasSecond {
			c.What += ", and a second LUKS2 header"
		}
		if ok {
			return c
		}
	}
	if hasSecond {
		return second
	}
	if interrupted == nil && img.firstData >= 0 {
		return Content{Kind: Foreign, What: fmt.Sprintf("data at byte %d", img.firstData)}
	}
	if interrupted == nil || interrupted.Over == luks2.OverBlank {
		switch at, err := sample(r, size); {
		case err != nil:
			return Content{What: err.Error()}
		case at >= 0:
			return Content{Kind: Foreign, What: fmt.Sprintf("data at byte %d", at)}
		}
	}
	if interrupted != nil {
		return Content{Kind: Begun, What: "formatting was interrupted", Over: interrupted.Over}
	}
	return Content{Kind: Blank, What: "blank"}
}

// image is what was read of a device: the parts where signatures can be.
type image struct {
	size      int64
	chunks    map[int64][]byte // by offset/chunkSize; none where all is zero
	firstData int64            // of the first byte that is not zero, or -1
}

// outside are the places of signatures beyond the first MiB, and not in the last:
// LUKS2 second headers, VMFS, bcachefs.
var outside = []int64{1 * mib, 2 * mib, 4 * mib}

// outsideEnd is such a place counted from the end, of Promise FastTrak RAID.
const outsideEnd = 3087 * 512

func readImage(r io.ReaderAt, size int64) (*image, error) {
	if size <= 0 {
		return nil, fmt.Errorf("its size is %d bytes", size)
	}
	headEnd, tail := min(size, mib), max(size-mib, 0)
	var numbers []int64
	for off := int64(0); off < headEnd; off += chunkSize {
		numbers = append(numbers, off/chunkSize)
	}
	for _, off := range slices.Concat(outside, []int64{size - outsideEnd}) {
		if off >= 0 && off < size {
			numbers = append(numbers, off/chunkSize)
		}
	}
	for n := tail / chunkSize; n <= (size-1)/chunkSize; n++ {
		numbers = append(numbers, n)
	}
	ascending(numbers)

	img := &image{size: size, chunks: map[int64][]byte{}, firstData: -1}
	buf := make([]byte, chunkSize)
	for _, n := range slices.Compact(numbers) {
		start := n * chunkSize
		if _, ok := img.luksPrimary(); ok && start+chunkSize <= size-mdEnd {
			continue // opening should be quick: it is LUKS, or md
		}
		end := start + min(chunkSize, size-start)
		chunk := buf[:end-start]
		if err := readAt(r, chunk, start); err != nil {
			return nil, err
		}
		i := firstNonZero(chunk)
		if i < 0 {
			continue
		}
		img.chunks[n] = bytes.Clone(chunk)
		if img.firstData < 0 {
			img.firstData = start + int64(i)
		}
	}
	return img, nil
}

// readAt reads all of b, and says up to which byte it could.
func readAt(r io.ReaderAt, b []byte, start int64) error {
	got, err := r.ReadAt(b, start)
	if got == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading byte %d: %w", start+int64(max(got, 0)), reason(err))
}

// at returns n bytes at an offset, nil if they are all zero or were not read.
func (img *image) at(off int64, n int) []byte {
	if off < 0 {
		return nil
	}
	chunk, i := img.chunks[off/chunkSize], int(off%chunkSize)
	if i+n > len(chunk) {
		return nil
	}
	return chunk[i : i+n]
}

var zeros [chunkSize]byte

// firstNonZero returns the index of the first byte that is not zero, or -1, of at
// most chunkSize bytes.
func firstNonZero(b []byte) int {
	if bytes.Equal(b, zeros[:len(b)]) { // much quicker than looking at each byte
		return -1
	}
	if rest := bytes.TrimLeft(b, "\x00"); len(rest) > 0 {
		return len(b) - len(rest)
	}
	return -1
}

// reason takes the path off an error, which the caller names.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// The binary header of LUKS2, of which LUKS1 shares magic, version and UUID:
// LUKS On-Disk Format, versions 1.2.3 and 2.
const (
	luksMagic      = "LUKS\xba\xbe"
	luksMagic2     = "SKUL\xba\xbe"
	luksHeaderSize = 512 // of the parts used here
)

func (img *image) luksPrimary() (Content, bool) {
	h := img.at(0, luksHeaderSize)
	if !bytes.HasPrefix(h, []byte(luksMagic)) {
		return Content{}, false
	}
	return luksContent(h, fmt.Sprintf("LUKS%d volume", binary.BigEndian.Uint16(h[6:]))), true
}

// luksSecondary looks for a second header at the nine places it may have.
func (img *image) luksSecondary() (Content, bool) {
	for off := int64(16 << 10); off <= 4<<20; off *= 2 {
		if h := img.at(off, luksHeaderSize); bytes.HasPrefix(h, []byte(luksMagic2)) {
			return luksContent(h, fmt.Sprintf("LUKS2 volume without its first header (second at byte %d)", off)), true
		}
	}
	return Content{}, false
}

// luksContent reads label and UUID, unverified.
func luksContent(h []byte, what string) Content {
	c := Content{Kind: LUKS, UUID: text(h[168:208])}
	if strings.Trim(c.UUID, "0123456789abcdefABCDEF-") != "" {
		c.UUID = "" // it is printed and compared: nothing else has a place there
	}
	if binary.BigEndian.Uint16(h[6:]) >= 2 {
		c.Label = text(h[24:72])
	}
	c.What = describe(what, c.Label)
	return c
}

// text returns a NUL-padded field.
func text(field []byte) string {
	field, _, _ = bytes.Cut(field, []byte{0})
	return string(bytes.TrimRight(field, " "))
}

func describe(what, label string) string {
	if label == "" {
		return what
	}
	return fmt.Sprintf("%s %q", what, label)
}

// match tells whether a signature is there, and what it then says.
func (img *image) match(s signature) (Content, bool) {
	for _, off := range s.at {
		if off < 0 {
			off += img.size
		}
		if string(img.at(off, len(s.magic))) != s.magic || s.also != nil && !s.also(img, off) {
			continue
		}
		c := Content{Kind: Foreign}
		if s.label.size > 0 {
			c.Label = text(img.at(s.label.off, s.label.size))
		}
		if s.uuid > 0 {
			c.UUID = uuid(img.at(s.uuid, 16))
		}
		c.What = describe(s.name, c.Label)
		return c, true
	}
	return Content{}, false
}

// uuid prints the 16 bytes of a UUID in their order; "" for none.
func uuid(b []byte) string {
	if firstNonZero(b) < 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
