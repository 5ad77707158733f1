package distro

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// readImage returns the files of an initramfs image: archives (newc) one after the
// other, the last of them compressed by zstd.
func readImage(file string) (map[string][]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for data = bytes.TrimLeft(data, "\x00"); len(data) > 0; data = bytes.TrimLeft(data, "\x00") {
		if !bytes.HasPrefix(data, []byte("0707")) {
			zr, err := zstd.NewReader(bytes.NewReader(data))
			if err != nil {
				return nil, err
			}
			data, err = io.ReadAll(zr)
			zr.Close()
			if err != nil {
				return nil, fmt.Errorf("unpacking %s: %w", file, err)
			}
		}
		if data, err = readArchive(data, files); err != nil {
			return nil, fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return files, nil
}

// readArchive reads one archive into files and returns what follows it. The header
// is 6 bytes of magic and 13 numbers of 8 hexadecimal digits each.
func readArchive(data []byte, files map[string][]byte) ([]byte, error) {
	const header, sizeAt, nameAt = 110, 6 + 6*8, 6 + 11*8
	pad := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		if len(data) < at+header || string(data[at:at+4]) != "0707" {
			return nil, errors.New("not a cpio archive")
		}
		number := func(off int) int {
			n, _ := strconv.ParseUint(string(data[at+off:at+off+8]), 16, 31)
			return int(n)
		}
		size, nameLen := number(sizeAt), number(nameAt)
		begin := pad(at + header + nameLen)
		if nameLen == 0 || len(data) < begin+size {
			return nil, io.ErrUnexpectedEOF
		}
		name := string(data[at+header : at+header+nameLen-1])
		at = pad(begin + size)
		if name == "TRAILER!!!" {
			return data[min(at, len(data)):], nil
		}
		files[strings.TrimPrefix(name, "./")] = data[begin : begin+size]
	}
}

// differing returns names and content of the files that others lack or have otherwise,
// but for kernel modules and what depmod says of them.
func differing(files, others map[string][]byte) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(files)) {
		other, found := others[name]
		if found && bytes.Equal(files[name], other) || strings.HasPrefix(name, "lib/modules/") || strings.HasPrefix(name, "usr/lib/modules/") {
			continue
		}
		b.WriteString(name)
		b.Write(files[name])
	}
	return b.Bytes()
}
