package block

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	modelInstanceStore = "Amazon EC2 NVMe Instance Storage"
	modelEBS           = "Amazon Elastic Block Store"
)

// classify tells what a disk is from its model and serial (trimmed) and from the
// vendor's part of the controller's identity, which may be missing. EC2 puts the
// name of the device at the beginning of that part: "sdf" or "/dev/sdf" padded
// with blanks for EBS, "ephemeral0:sdb" or "ephemeral0:none" padded with NUL for
// instance store. The serial decides for emulated disks, whose model is fixed.
func classify(model, serial string, vendor []byte) (Kind, string) {
	if len(vendor) > 32 {
		vendor = vendor[:32]
	}
	vendor, _, _ = bytes.Cut(vendor, []byte{0})
	name := strings.TrimPrefix(strings.TrimSpace(string(vendor)), "/dev/")
	number, isEphemeral := strings.CutPrefix(name, "ephemeral")
	number, _, colon := strings.Cut(number, ":")
	isEphemeral = isEphemeral && colon && number != "" && digits(number) == len(number)
	switch {
	case model == modelEBS || isSerial(serial, "vol", "0123456789abcdef"):
		if !isName(name) {
			name = ""
		}
		return KindEBS, name
	case isEphemeral:
		return KindInstanceStore, "ephemeral" + number
	case model == modelInstanceStore || isSerial(serial, "AWS", "0123456789ABCDEF"):
		return KindInstanceStore, ""
	}
	return KindOther, ""
}

// isSerial tells whether s is the prefix and 17 of the digits.
func isSerial(s, prefix, digits string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	return ok && len(rest) == 17 && strings.Trim(rest, digits) == ""
}

// isName tells whether s can be the name of a device: letters and digits.
func isName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}

func (f *Finder) identifyFunc() func(string) ([]byte, error) {
	if f.identify != nil {
		return f.identify
	}
	return identifyController
}

// adminCommand is struct nvme_passthru_cmd of the kernel's linux/nvme_ioctl.h.
type adminCommand struct {
	Opcode, Flags      uint8
	_                  uint16
	NSID               uint32
	_                  [2]uint32
	Metadata, Addr     uint64
	MetadataLen, Len   uint32
	CDW                [6]uint32 // command dwords 10 to 15
	TimeoutMS, Result_ uint32
}

// identifyController returns the vendor's part, bytes 3072 to 4095, of what the
// controller of an NVMe disk says to Identify Controller (NVM Express base
// specification, opcode 06h, CNS 01h).
func identifyController(path string) ([]byte, error) {
	const (
		ioctlAdminCmd = 0xc0484e41 // _IOWR('N', 0x41, struct nvme_passthru_cmd)
		identify      = 0x06
		controller    = 1
	)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := new([4096]byte)
	var pin runtime.Pinner
	pin.Pin(data)
	defer pin.Unpin()
	cmd := adminCommand{
		Opcode:    identify,
		Addr:      uint64(uintptr(unsafe.Pointer(data))),
		Len:       uint32(len(data)),
		CDW:       [6]uint32{controller},
		TimeoutMS: 5000,
	}
	status, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlAdminCmd, uintptr(unsafe.Pointer(&cmd)))
	if errno != 0 {
		return nil, fmt.Errorf("identifying the NVMe controller of %s: %w", path, errno)
	}
	if status != 0 {
		return nil, fmt.Errorf("identifying the NVMe controller of %s: NVMe status %#x", path, status)
	}
	return data[3072:], nil
}
