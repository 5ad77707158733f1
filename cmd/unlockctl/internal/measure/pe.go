package measure

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Image is a program for UEFI.
type Image struct {
	Name string // for messages
	data []byte

	checksum     int // offset of the optional header's CheckSum
	certEntry    int // offset of the data directory's entry for certificates
	certificates []byte
	headers      int // size
	sections     []section
}

// section of an image.
type section struct {
	name         string
	virtual      int // size in memory
	offset, size int // in the file
}

var le = binary.LittleEndian

// Read reads a program.
func Read(name string, data []byte) (*Image, error) {
	i := &Image{Name: name, data: data}
	if err := i.parse(); err != nil {
		return nil, fmt.Errorf("%s is no program for UEFI: %w", name, err)
	}
	return i, nil
}

// parse reads the headers ("PE Format", Microsoft).
func (i *Image) parse() error {
	d := i.data
	if len(d) < 64 || string(d[:2]) != "MZ" {
		return errors.New("it does not begin with MZ")
	}
	pe := int(le.Uint32(d[60:]))
	if pe > len(d)-24 || string(d[pe:pe+4]) != "PE\x00\x00" {
		return errors.New("it has no PE header")
	}
	count, optionalSize := int(le.Uint16(d[pe+6:])), int(le.Uint16(d[pe+20:]))
	optional := pe + 24
	if optional+optionalSize > len(d) || optionalSize < 96 {
		return errors.New("its optional header is cut off")
	}
	directories := optional + 96
	switch le.Uint16(d[optional:]) {
	case 0x10b:
	case 0x20b:
		directories += 16
	default:
		return errors.New("its optional header is of no known kind")
	}
	i.checksum, i.headers = optional+64, int(le.Uint32(d[optional+60:]))
	const certificates = 4
	i.certEntry = directories + 8*certificates
	if i.certEntry+8 > optional+optionalSize || le.Uint32(d[directories-4:]) <= certificates {
		return errors.New("it has no directory of certificates")
	}
	at, size := int(le.Uint32(d[i.certEntry:])), int(le.Uint32(d[i.certEntry+4:]))
	if size > 0 {
		if at > len(d) || size > len(d)-at {
			return errors.New("its certificates are cut off")
		}
		i.certificates = d[at : at+size]
	}
	table := optional + optionalSize
	if i.headers < table+40*count || i.headers > len(d) {
		return errors.New("its headers are cut off")
	}
	for n := range count {
		h := d[table+40*n:]
		s := section{name: strings.TrimRight(string(h[:8]), "\x00"), virtual: int(le.Uint32(h[8:])), size: int(le.Uint32(h[16:])), offset: int(le.Uint32(h[20:]))}
		if s.size > 0 && (s.offset > len(d) || s.size > len(d)-s.offset) {
			return fmt.Errorf("its section %s is cut off", s.name)
		}
		i.sections = append(i.sections, s)
	}
	return nil
}

// Authenticode returns the hash that firmware takes of the image: all of it but the
// checksum and what has to do with its signature.
func (i *Image) Authenticode(h hash.Hash) []byte {
	h.Write(i.data[:i.checksum])
	h.Write(i.data[i.checksum+4 : i.certEntry])
	h.Write(i.data[i.certEntry+8 : i.headers])
	hashed := i.headers
	sections := slices.Clone(i.sections)
	slices.SortStableFunc(sections, func(a, b section) int { return cmp.Compare(a.offset, b.offset) })
	for _, s := range sections {
		if s.size > 0 {
			h.Write(i.data[s.offset : s.offset+s.size])
			hashed += s.size
		}
	}
	if end := len(i.data) - len(i.certificates); hashed < end {
		h.Write(i.data[hashed:end])
	}
	return h.Sum(nil)
}

// section returns the content of a section, as long as it is in memory.
func (i *Image) section(name string) ([]byte, bool) {
	n := slices.IndexFunc(i.sections, func(s section) bool { return s.name == name })
	if n < 0 {
		return nil, false
	}
	s := i.sections[n]
	content := i.data[s.offset : s.offset+min(s.size, s.virtual)]
	if missing := s.virtual - len(content); missing > 0 && missing <= 1<<20 {
		content = append(slices.Clone(content), make([]byte, missing)...)
	}
	return content, true
}

// count returns how many sections have a name.
func (i *Image) count(name string) int {
	n := 0
	for _, s := range i.sections {
		if s.name == name {
			n++
		}
	}
	return n
}

// CommandLine is the kernel's that is built into a unified image.
func (i *Image) CommandLine() string {
	content, _ := i.section(".cmdline")
	return strings.TrimRight(string(content), "\x00\n ")
}

var magic = regexp.MustCompile(`^#### LoaderInfo: (systemd-stub|systemd-boot) (([0-9]+)[^ ]*) ####`)

// kind returns what the image's .sdmagic says: "systemd-stub" or "systemd-boot", its
// version as text, and the first number of that.
func (i *Image) kind() (program, version string, major int) {
	content, _ := i.section(".sdmagic")
	m := magic.FindSubmatch(content)
	if m == nil && i.amazonLinux() {
		return "systemd-stub", "252 (Amazon Linux 2023, which does not say)", 252
	}
	if m == nil {
		return "", "", 0
	}
	major, _ = strconv.Atoi(string(m[3]))
	return string(m[1]), string(m[2]), major
}

// amazonLinux reports whether it is a unified image of Amazon Linux 2023, whose stub for
// arm64 says no version; AWS' nitro-tpm-pcr-compute takes it for 252.
func (i *Image) amazonLinux() bool {
	_, unified := i.section(".linux")
	release, _ := i.section(".osrel")
	return unified && i.count(".sdmagic") == 0 && bytes.Contains(release, []byte(`NAME="Amazon Linux"`)) && bytes.Contains(release, []byte(`VERSION="2023"`))
}

// What says what the image is.
func (i *Image) What() string {
	program, version, _ := i.kind()
	_, unified := i.section(".linux")
	_, grub := i.section("mods")
	_, shim := i.section(".vendor_") // .vendor_cert, cut off
	switch {
	case unified && program == "systemd-stub":
		return "unified kernel image with systemd-stub " + version
	case unified:
		return "unified kernel image with a stub without version"
	case program == "systemd-boot":
		return "systemd-boot " + version
	case grub:
		return "GRUB"
	case shim:
		return "shim"
	}
	return "unknown"
}
