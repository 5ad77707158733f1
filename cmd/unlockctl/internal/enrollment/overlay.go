package enrollment

import (
	"io"
)

// block is how much an overlay copies at a time, in bytes.
const block = 4096

// overlay is a Device whose writes stay in memory: a rehearsal.
type overlay struct {
	under  io.ReaderAt
	blocks map[int64]*[block]byte
}

func newOverlay(under io.ReaderAt) *overlay {
	return &overlay{under: under, blocks: map[int64]*[block]byte{}}
}

func (o *overlay) ReadAt(b []byte, offset int64) (int, error) {
	n, err := o.under.ReadAt(b, offset)
	for at := 0; at < n; {
		i, within := (offset+int64(at))/block, int((offset+int64(at))%block)
		length := min(block-within, n-at)
		if changed := o.blocks[i]; changed != nil {
			copy(b[at:at+length], changed[within:])
		}
		at += length
	}
	return n, err
}

func (o *overlay) WriteAt(b []byte, offset int64) (int, error) {
	for at := 0; at < len(b); {
		i, within := (offset+int64(at))/block, int((offset+int64(at))%block)
		changed := o.blocks[i]
		if changed == nil {
			changed = new([block]byte)
			if _, err := o.under.ReadAt(changed[:], i*block); err != nil && err != io.EOF {
				return at, err
			}
			o.blocks[i] = changed
		}
		at += copy(changed[within:], b[at:])
	}
	return len(b), nil
}

func (o *overlay) Sync() error { return nil }
