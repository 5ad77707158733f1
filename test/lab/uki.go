package lab

import (
	"bytes"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"

	"unlock/test/vm"
)

// Firmware of Debian's package ovmf: that without variables, and that of Secure Boot,
// whose variables have the snakeoil key.
const (
	firmware          = "/usr/share/ovmf/OVMF.fd"
	secureFirmware    = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	SnakeoilVariables = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"
	snakeoilKey       = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	snakeoilCert      = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
)

// UKI is a unified kernel image of what the standalone system boots, on an EFI system
// partition. It is made anew before each boot.
type UKI struct {
	Suite   string // the Debian release of systemd-stub and systemd-boot; "": Debian 12
	Boot    bool   // systemd-boot in front
	Secure  bool   // Secure Boot is on, and all is signed
	Driver  bool   // on the ESP is a driver, which systemd-boot starts
	Changed bool   // the initramfs has more padding at its end
	More    string // on its command line
}

// esp is the name of the disk image with the EFI system partition.
const esp = "esp.img"

// Unified boots a system's kernel and initramfs as a unified kernel image, under UEFI
// firmware. The image's command line is the scenario's: boots cannot append to it.
func Unified(system System) System {
	return func(ctx context.Context, l *Lab) error {
		if err := system(ctx, l); err != nil {
			return err
		}
		initrd := l.Build
		l.Base.Disks = append(l.Base.Disks, vm.Disk{File: l.File(esp), Serial: "vol0123456789abcdef0", Virtio: true, ReadOnly: true, First: true}) // another that is tried is measured, too
		l.Build = func(ctx context.Context, conf string) error {
			if initrd != nil {
				if err := initrd(ctx, conf); err != nil {
					return err
				}
			}
			return l.buildUKI(ctx)
		}
		return nil
	}
}

// ESP returns the disk image that the machine boots.
func (l *Lab) ESP() string { return l.File(esp) }

// buildUKI makes the disk that the machine boots from, and chooses the firmware.
func (l *Lab) buildUKI(ctx context.Context) error {
	loader, err := vm.Loaders(ctx, orBookworm(l.UKI.Suite), "amd64")
	if err != nil {
		return err
	}
	initrd, err := os.ReadFile(l.Base.Initrd)
	if err != nil {
		return err
	}
	if l.UKI.Changed {
		initrd = append(initrd, make([]byte, 4)...)
	}
	changed, uki := l.File("uki.initrd"), l.File("unlock.efi")
	cmdline := "console=ttyS0 " + vm.Always + " nohibernate " + l.Base.Append + " " + l.Append + " " + l.UKI.More
	if err := errors.Join(
		os.WriteFile(changed, initrd, 0o600),
		os.WriteFile(l.File("uki.cmdline"), []byte(cmdline), 0o600),
		os.WriteFile(l.File("uki.osrel"), []byte("ID=unlock\nVERSION_ID=1\nPRETTY_NAME=\"unlock's test\"\n"), 0o600),
	); err != nil {
		return err
	}
	if err := Unify(loader.Stub, uki, Part{".osrel", l.File("uki.osrel")}, Part{".cmdline", l.File("uki.cmdline")}, Part{".initrd", changed}, Part{".linux", l.Base.Kernel}); err != nil {
		return err
	}
	programs := map[string]string{"EFI/BOOT/BOOTX64.EFI": uki}
	if l.UKI.Boot {
		programs = map[string]string{"EFI/BOOT/BOOTX64.EFI": loader.Boot, "EFI/Linux/unlock.efi": uki}
	}
	if l.UKI.Driver {
		driver := l.File("driver.efi")
		if err := makeDriver(loader.Stub, driver); err != nil {
			return err
		}
		programs["EFI/systemd/drivers/testx64.efi"] = driver
	}
	l.Base.Firmware, l.Base.Variables = firmware, ""
	if l.UKI.Secure {
		l.Base.Firmware, l.Base.Variables = secureFirmware, SnakeoilVariables
		for place, file := range programs {
			if programs[place], err = l.sign(ctx, file); err != nil {
				return err
			}
		}
	}
	return makeESP(ctx, l.ESP(), programs)
}

func orBookworm(suite string) string {
	if suite == "" {
		return "bookworm"
	}
	return suite
}

// Part of a unified kernel image: the file that is its section.
type Part struct{ Section, File string }

// section is the header of a section ("PE Format", Microsoft).
type section struct {
	Name                       [8]byte
	Size, Address, Raw, Offset uint32 // in memory, then in the file
	Relocations, Lines         uint32
	RelocationCount, LineCount uint16
	Characteristics            uint32
}

const (
	sectionSize = 40
	readOnly    = 0x40000040 // initialized data
)

// Unify makes a unified kernel image of a stub (systemd-stub(7)), of any architecture of 64
// bits, and is the same each time: the header has no time, and no checksum, which nobody asks for.
func Unify(stub, uki string, parts ...Part) error {
	b, err := os.ReadFile(stub)
	if err != nil {
		return err
	}
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("reading %s: %w", stub, err)
	}
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return fmt.Errorf("%s is not for 64 bits", stub)
	}
	align := func(n, to uint32) uint32 { return (n + to - 1) / to * to }
	header := int(binary.LittleEndian.Uint32(b[60:])) + 4
	table := header + 20 + int(f.SizeOfOptionalHeader)
	// The table grows: what is in the file after it moves.
	headers := align(uint32(table+sectionSize*(len(f.Sections)+len(parts))), h.FileAlignment)
	moved := max(headers, h.SizeOfHeaders) - h.SizeOfHeaders
	out := append(bytes.Clone(b[:table]), make([]byte, int(h.SizeOfHeaders+moved)-table)...)
	end, last := uint32(0), h.SizeOfHeaders // the ends in memory and in the file
	var all []section
	for i, old := range f.Sections {
		s := section{Size: old.VirtualSize, Address: old.VirtualAddress, Raw: old.Size, Offset: old.Offset, Characteristics: old.Characteristics}
		copy(s.Name[:], b[table+sectionSize*i:])
		if s.Address < h.SizeOfHeaders+moved {
			return fmt.Errorf("%s has no room for %d sections more", stub, len(parts))
		}
		if s.Raw > 0 {
			last = max(last, s.Offset+s.Raw)
			s.Offset += moved
		}
		end = max(end, s.Address+max(s.Size, s.Raw))
		all = append(all, s)
	}
	out = append(out, b[h.SizeOfHeaders:last]...) // symbols may follow
	for _, p := range parts {
		content, err := os.ReadFile(p.File)
		if err != nil {
			return err
		}
		out = append(out, make([]byte, int(align(uint32(len(out)), h.FileAlignment))-len(out))...)
		s := section{Size: uint32(len(content)), Address: align(end, h.SectionAlignment), Raw: align(uint32(len(content)), h.FileAlignment), Offset: uint32(len(out)), Characteristics: readOnly}
		copy(s.Name[:], p.Section)
		out = append(append(out, content...), make([]byte, int(s.Raw)-len(content))...)
		end = s.Address + s.Size
		all = append(all, s)
	}
	for i, s := range all {
		if _, err := binary.Encode(out[table+sectionSize*i:], binary.LittleEndian, s); err != nil {
			return err
		}
	}
	binary.LittleEndian.PutUint16(out[header+2:], uint16(len(all)))
	const date, symbols, optional = 4, 8, 20
	const sizeOfImage, sizeOfHeaders, checksum = optional + 56, optional + 60, optional + 64
	for at, value := range map[int]uint32{date: 0, symbols: 0, symbols + 4: 0, sizeOfImage: align(end, h.SectionAlignment), sizeOfHeaders: h.SizeOfHeaders + moved, checksum: 0} {
		binary.LittleEndian.PutUint32(out[header+at:], value)
	}
	return os.WriteFile(uki, out, 0o600)
}

// makeDriver makes a driver of a stub: it has another number in its header. Without a
// kernel in it, it does nothing when it is started.
func makeDriver(stub, file string) error {
	b, err := os.ReadFile(stub)
	if err != nil {
		return err
	}
	const subsystem, bootServiceDriver = 24 + 68, 11
	binary.LittleEndian.PutUint16(b[binary.LittleEndian.Uint32(b[60:])+subsystem:], bootServiceDriver)
	return os.WriteFile(file, b, 0o600)
}

// sign signs a program with the snakeoil key.
func (l *Lab) sign(ctx context.Context, file string) (string, error) {
	key, signed := l.File("snakeoil.key"), l.File("signed-"+filepath.Base(file))
	if err := Command(ctx, "", "openssl", "rsa", "-in", snakeoilKey, "-passin", "pass:snakeoil", "-out", key); err != nil {
		return "", err
	}
	return signed, Command(ctx, "", "sbsign", "--key", key, "--cert", snakeoilCert, "--output", signed, file)
}

// makeESP makes a disk with one partition and these files: place to source.
func makeESP(ctx context.Context, image string, files map[string]string) error {
	const first = 2048 // sectors
	if err := errors.Join(os.RemoveAll(image), os.WriteFile(image, nil, 0o600), os.Truncate(image, 128<<20)); err != nil {
		return err
	}
	if err := Command(ctx, "label: gpt\nlabel-id: 5f3c6b1e-7a0d-4c7e-9d55-2b8f0c1d9e43\nstart=2048, size=258048, type=uefi\n", "/sbin/sfdisk", "-q", image); err != nil {
		return err
	}
	if err := Command(ctx, "", "/sbin/mkfs.vfat", "--offset", fmt.Sprint(first), "-F", "32", image, fmt.Sprint(258048/2)); err != nil {
		return err
	}
	drive := fmt.Sprintf("%s@@%d", image, first*512)
	made := map[string]bool{}
	for place, source := range files {
		for i, c := range place {
			if dir := place[:i]; c == '/' && !made[dir] {
				made[dir] = true
				if err := Command(ctx, "", "mmd", "-i", drive, "::"+dir); err != nil {
					return err
				}
			}
		}
		if err := Command(ctx, "", "mcopy", "-i", drive, source, "::"+place); err != nil {
			return err
		}
	}
	return nil
}

// Variables reads variables of a flash image (EDK II, AUTHENTICATED_VARIABLE_HEADER).
func Variables(file string, names ...string) (map[string][]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found := map[string][]byte{}
	const header, added = 60, 0x3f
	for at := 0; at+header < len(b); at += 4 {
		h := b[at:]
		nameSize, dataSize := int(binary.LittleEndian.Uint32(h[36:])), int(binary.LittleEndian.Uint32(h[40:]))
		if binary.LittleEndian.Uint16(h) != 0x55aa || h[2] != added || nameSize > 512 || header+nameSize+dataSize > len(h) {
			continue
		}
		text := make([]uint16, nameSize/2)
		for i := range text {
			text[i] = binary.LittleEndian.Uint16(h[header+2*i:])
		}
		name := strings.TrimRight(string(utf16.Decode(text)), "\x00")
		if slices.Contains(names, name) {
			found[name] = h[header+nameSize : header+nameSize+dataSize]
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: %w: no variables", file, io.ErrUnexpectedEOF)
	}
	return found, nil
}
