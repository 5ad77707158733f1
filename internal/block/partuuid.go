package block

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// partUUID returns the PARTUUID of a partition: from its uevent, where the kernel
// (6.9 and later) puts it, else from the partition table. Without one it is "".
func (f *Finder) partUUID(dir, whole string) string {
	uevent, _ := attr(dir, "uevent")
	for line := range strings.Lines(uevent) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTUUID="); ok {
			return strings.ToLower(id)
		}
	}
	number, err := intAttr(dir, "partition")
	if err != nil {
		return ""
	}
	sectorSize, err := intAttr(whole, "queue/logical_block_size")
	if err != nil {
		return ""
	}
	disk, err := os.Open(filepath.Join(f.dev(), deviceName(whole)))
	if err != nil {
		return ""
	}
	defer disk.Close()
	return tablePartUUID(disk, sectorSize, number)
}

// tablePartUUID reads the PARTUUID of a partition, counted from 1, from a disk's
// first GPT (UEFI specification, 5.3) or its MBR, where it is made of the disk's
// 32-bit signature and the number.
func tablePartUUID(disk io.ReaderAt, sectorSize, number int64) string {
	header := make([]byte, 92)
	if _, err := disk.ReadAt(header, sectorSize); err == nil && string(header[:8]) == "EFI PART" {
		le := binary.LittleEndian
		first, count, size := le.Uint64(header[72:]), le.Uint32(header[80:]), le.Uint32(header[84:])
		if number < 1 || number > int64(count) || size < 128 || size > 4096 || first > 1<<32 {
			return ""
		}
		guid := make([]byte, 16)
		if _, err := disk.ReadAt(guid, int64(first)*sectorSize+(number-1)*int64(size)+16); err != nil {
			return ""
		}
		return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(guid), le.Uint16(guid[4:]), le.Uint16(guid[6:]), guid[8:10], guid[10:])
	}
	mbr := make([]byte, 512)
	if _, err := disk.ReadAt(mbr, 0); err != nil || mbr[510] != 0x55 || mbr[511] != 0xaa {
		return ""
	}
	if id := binary.LittleEndian.Uint32(mbr[440:]); id != 0 {
		return fmt.Sprintf("%08x-%02x", id, number)
	}
	return ""
}
