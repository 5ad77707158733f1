package vm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// vmlinux returns the kernel in an image of the x86 boot protocol as QEMU starts it without
// any code of the image, which would take a second or two to unpack the kernel. What was
// unpacked stays beside the image. Where this cannot be done, it returns the image.
func vmlinux(image string) string {
	file := filepath.Join(filepath.Dir(image), "unpacked-"+filepath.Base(image))
	if _, err := os.Stat(file); err == nil {
		return file
	}
	packed, err := os.ReadFile(image)
	if err != nil {
		return image
	}
	kernel, err := unpackKernel(packed)
	if err != nil || !startsInQEMU(kernel) {
		return image
	}
	tmp, err := os.CreateTemp(filepath.Dir(image), "new-")
	if err != nil {
		return image
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(kernel)
	if err := errors.Join(err, tmp.Close(), os.Rename(tmp.Name(), file)); err != nil {
		return image
	}
	return file
}

// unpackKernel returns what an image unpacks at its start: Documentation/arch/x86/boot.rst.
func unpackKernel(image []byte) ([]byte, error) {
	const setupSectors, magic, payloadOffset, payloadLength, header = 0x1f1, 0x202, 0x248, 0x24c, 0x250
	if len(image) < header || string(image[magic:magic+4]) != "HdrS" {
		return nil, errors.New("not an image of the x86 boot protocol")
	}
	at := uint64(image[setupSectors])*512 + 512 + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	end := at + uint64(binary.LittleEndian.Uint32(image[payloadLength:]))
	if end < at+8 || end > uint64(len(image)) {
		return nil, io.ErrUnexpectedEOF
	}
	payload := image[at : end-4] // its last four bytes are the size of what was packed
	switch {
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(bytes.NewReader(payload))
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	case bytes.HasPrefix(payload, []byte{0x02, 0x21, 0x4c, 0x18}):
		return io.ReadAll(lz4.NewReader(bytes.NewReader(payload)))
	}
	return nil, errors.ErrUnsupported
}

// startsInQEMU tells whether a kernel has the note by which QEMU starts it: Xen's
// XEN_ELFNOTE_PHYS32_ENTRY (CONFIG_PVH).
func startsInQEMU(kernel []byte) bool {
	const entry = 18
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return false
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		for err == nil && len(notes) >= 12 {
			name, desc, kind := binary.LittleEndian.Uint32(notes), binary.LittleEndian.Uint32(notes[4:]), binary.LittleEndian.Uint32(notes[8:])
			if kind == entry && bytes.HasPrefix(notes[12:], []byte("Xen\x00")) {
				return true
			}
			next := 12 + (uint64(name)+3)&^3 + (uint64(desc)+3)&^3
			notes = notes[min(next, uint64(len(notes))):]
		}
	}
	return false
}
