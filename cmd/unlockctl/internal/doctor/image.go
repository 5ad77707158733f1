package doctor

import (
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// Limits of an image that is read, in bytes.
const (
	maxImage = 1 << 30
	maxName  = 4096
)

// imageFiles is what an initramfs contains: modules by name, and the content of
// the other regular files.
type imageFiles struct {
	content map[string][]byte
	modules map[string]bool
}

// readImage reads an initramfs as the kernel does (early-userspace/buffer-format.rst):
// cpio archives one after the other, with zeros in between, each plain or compressed.
func readImage(file string) (*imageFiles, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := &imageFiles{content: map[string][]byte{}, modules: map[string]bool{}}
	found := false
	for len(data) > 0 {
		data = bytes.TrimLeft(data, "\x00")
		if len(data) == 0 {
			break
		}
		if bytes.HasPrefix(data, []byte("07070")) {
			found = true
			if data, err = f.archive(data); err != nil {
				return nil, err
			}
			continue
		}
		if data, err = decompress(data); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, errNoCpio
	}
	return f, nil
}

// decompress returns what the rest of an image unpacks to.
func decompress(data []byte) ([]byte, error) {
	var r io.Reader
	var err error
	in := bytes.NewReader(data)
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		r, err = gzip.NewReader(in)
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var d *zstd.Decoder
		if d, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	case bytes.HasPrefix(data, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		r, err = xz.NewReader(in)
	case bytes.HasPrefix(data, []byte("BZh")):
		r = bzip2.NewReader(in)
	case bytes.HasPrefix(data, []byte{0x02, 0x21, 0x4c, 0x18}), bytes.HasPrefix(data, []byte{0x04, 0x22, 0x4d, 0x18}):
		r = lz4.NewReader(in)
	default:
		return nil, errNoCpio
	}
	if err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxImage))
	if err != nil && !(len(plain) > 0 && bytes.HasPrefix(plain, []byte("07070"))) {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	if !bytes.HasPrefix(plain, []byte("07070")) {
		return nil, errNoCpio
	}
	return plain, nil
}

// archive reads one cpio archive in the newc format, and returns what follows it.
func (f *imageFiles) archive(data []byte) ([]byte, error) {
	const header = 110
	for at := 0; ; {
		if at+header > len(data) {
			return nil, imageError(int64(at), "the archive ends in the middle")
		}
		field := func(i int) (int, error) {
			n, err := strconv.ParseUint(string(data[at+6+8*i:at+14+8*i]), 16, 31)
			return int(n), err
		}
		mode, err1 := field(1)
		size, err2 := field(6)
		nameSize, err3 := field(11)
		if err1 != nil || err2 != nil || err3 != nil || nameSize < 1 || nameSize > maxName {
			return nil, imageError(int64(at), "not a cpio header")
		}
		body := (at + header + nameSize + 3) &^ 3
		if at+header+nameSize > len(data) || body+size > len(data) {
			return nil, imageError(int64(at), "the archive ends in the middle")
		}
		name := string(data[at+header : at+header+nameSize-1])
		if name == "TRAILER!!!" {
			return data[min(body+size, len(data)):], nil
		}
		name = strings.TrimPrefix(path.Clean("/"+name), "/")
		switch {
		case strings.Contains(path.Base(name), ".ko"):
			f.modules[moduleName(name)] = true
		case mode&0o170000 == 0o100000:
			f.content[name] = data[body : body+size]
		}
		at = (body + size + 3) &^ 3
	}
}
