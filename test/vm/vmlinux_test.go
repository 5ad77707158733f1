package vm

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// image returns an image of the boot protocol around a payload.
func image(payload []byte) []byte {
	const sectors = 4
	b := make([]byte, (sectors+1)*512+16)
	b[0x1f1] = sectors
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(b[0x248:], 16)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)+4))
	return append(append(b, payload...), 1, 2, 3, 4)
}

// kernel returns an ELF file with one note.
func kernel(name string, kind uint32) []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	note := append(binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1)), 4, 0, 0, 0)
	note = append(append(binary.LittleEndian.AppendUint32(note, kind), name+"\x00"...), 0, 0, 0, 1)
	for _, v := range []any{h, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(note)), Memsz: uint64(len(note))}, note} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	return b.Bytes()
}

func TestVmlinux(t *testing.T) {
	t.Parallel()
	starts := kernel("Xen", 18)
	var frame, legacy bytes.Buffer
	zw, _ := zstd.NewWriter(&frame)
	lw := lz4.NewWriter(&legacy)
	if err := lw.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	for _, w := range []interface {
		Write([]byte) (int, error)
		Close() error
	}{zw, lw} {
		if _, err := w.Write(starts); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other, _ := zstd.NewWriter(nil)
	for name, row := range map[string]struct {
		image    []byte
		unpacked bool
	}{
		"zstd":        {image(frame.Bytes()), true},
		"lz4":         {image(legacy.Bytes()), true},
		"without PVH": {image(other.EncodeAll(kernel("Xen", 17), nil)), false},
		"another's":   {image(other.EncodeAll(kernel("GNU", 18), nil)), false},
		"cut short":   {image(frame.Bytes())[:0x300], false},
		"gzip":        {image([]byte("\x1f\x8b\x08 and what follows")), false},
		"no image":    {[]byte("MZ"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "vmlinuz")
			if err := os.WriteFile(file, row.image, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // made, and found
				got := vmlinux(file)
				if !row.unpacked {
					if got != file {
						t.Errorf("vmlinux returns %s, want the image", got)
					}
					continue
				}
				if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, starts) {
					t.Errorf("vmlinux returns %s, which does not hold the kernel (%v)", got, err)
				}
			}
		})
	}
	if got := vmlinux("nowhere"); got != "nowhere" {
		t.Errorf("vmlinux returns %s for a file that is not there", got)
	}
}
