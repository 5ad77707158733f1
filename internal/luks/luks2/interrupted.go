package luks2

import (
	"bytes"
	"fmt"
	"io"
	"slices"
)

// Over is what a device held before it was formatted.
type Over int

const (
	OverBlank     Over = iota // nothing, or a volume into which nobody ever wrote
	OverEphemeral             // an ephemeral volume, of which ciphertext without a key is left
)

// Interrupted, which is an ErrNotLUKS: Format was cut short and nothing was written
// since, so that it may be repeated: where the headers, key areas and, unless an
// ephemeral volume was there before, the last MiB are, there is nothing but what
// Format writes. What else is on the device is for others to look at.
type Interrupted struct{ Over Over }

func (*Interrupted) Error() string { return ErrInterrupted.Error() }

// Is makes it an ErrInterrupted and an ErrNotLUKS.
func (*Interrupted) Is(err error) bool { return err == ErrInterrupted || err == ErrNotLUKS }

// begun is the end of what Format writes before the header that completes a volume.
const begun = 2*formatHeader + formatKey*stripes

// markers fill the first sector while Format is at work, and say what was there
// before. A sector is written as a whole or not at all, so that after a crash there is
// a complete header or one of these.
var markers = [...]string{
	OverBlank:     "unlock was formatting this disk; no volume has been completed since.\n",
	OverEphemeral: "unlock was formatting this disk anew; the ephemeral volume before is gone, and none has been completed since.\n",
}

func (o Over) marker() []byte {
	b := make([]byte, sector)
	copy(b, markers[o])
	return b
}

// Marked reports whether the first sector of a device is that of a Format at work.
func Marked(first []byte) (Over, bool) {
	for o := range markers {
		if len(first) >= sector && bytes.Equal(first[:sector], Over(o).marker()) {
			return Over(o), true
		}
	}
	return 0, false
}

// erase puts the marker in place of the primary header, and then takes the magic
// from all places where a secondary may be. Elsewhere it writes nothing: until that
// is durable, an old header may still be found, and then its key material must be
// there. Remains of volumes older than the last lie beyond its own secondary: they
// go first, so that they are never found in its stead.
func erase(dev Device, over Over) error {
	if over < 0 || int(over) >= len(markers) {
		return fmt.Errorf("nothing is known of what is to be replaced (%d)", over)
	}
	if err := writeAt(dev, over.marker(), 0); err != nil {
		return err
	}
	head := make([]byte, sector)
	for _, offset := range slices.Backward(headerSizes[:]) {
		if err := readFull(dev, head, offset); err != nil {
			return err
		}
		if !hasMagic(head, offset) {
			continue
		}
		if err := writeAt(dev, make([]byte, sector), offset); err != nil {
			return err
		}
	}
	return nil
}

// interrupted returns an *Interrupted if a device of size bytes is what Format leaves
// when it is cut short, else nil.
func interrupted(r io.ReaderAt, size int64) error {
	first := make([]byte, sector)
	if readFull(r, first, 0) != nil {
		return nil
	}
	over, ok := Marked(first)
	if !ok || !zero(r, sector, binSize) || !zero(r, formatHeader+sector, formatHeader+binSize) || !zero(r, begun, min(formatData, size)) {
		return nil
	}
	if over == OverBlank && !zero(r, max(formatData, size-1<<20), size) {
		return nil
	}
	return &Interrupted{over}
}

// zero reports whether the bytes from start to end can be read and are zero.
func zero(r io.ReaderAt, start, end int64) bool {
	b := make([]byte, 256<<10)
	for ; start < end; start += int64(len(b)) {
		b = b[:min(int64(len(b)), end-start)]
		// Compared with themselves, one on, which is quicker than byte by byte.
		if readFull(r, b, start) != nil || b[0] != 0 || !bytes.Equal(b[1:], b[:len(b)-1]) {
			return false
		}
	}
	return true
}
