package measure

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// fat reads a FAT file system ("FAT: General Overview of On-Disk Format", Microsoft).
// Names are compared without regard to case.
type fat struct {
	r           io.ReaderAt
	bits        int // of an entry: 12, 16 or 32
	table       []byte
	cluster     int64 // bytes
	data        int64 // offset of cluster 2
	root        uint32
	rootOffset  int64 // of FAT12's and FAT16's
	rootEntries int
}

const maxTable = 64 << 20

// openFAT opens the file system that begins at an offset.
func openFAT(r io.ReaderAt, offset int64) (*fat, error) {
	b := make([]byte, 512)
	if _, err := r.ReadAt(b, offset); err != nil {
		return nil, fmt.Errorf("reading a boot sector: %w", err)
	}
	sector, per, reserved, tables := int64(le.Uint16(b[11:])), int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	entries, sectors, tableSize := int64(le.Uint16(b[17:])), int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	if tableSize == 0 {
		tableSize = int64(le.Uint32(b[36:]))
	}
	if b[510] != 0x55 || b[511] != 0xaa || sector < 512 || sector > 4096 || sector&(sector-1) != 0 || per == 0 || per&(per-1) != 0 || reserved == 0 || tables == 0 || tableSize == 0 {
		return nil, errors.New("there is no FAT file system")
	}
	rootSectors := (entries*32 + sector - 1) / sector
	first := reserved + tables*tableSize + rootSectors
	clusters := (sectors - first) / per
	f := &fat{r: r, cluster: per * sector, data: offset + first*sector, rootOffset: offset + (reserved+tables*tableSize)*sector, rootEntries: int(entries)}
	switch {
	case clusters < 1 || tableSize*sector > maxTable:
		return nil, errors.New("there is no FAT file system")
	case clusters < 4085:
		f.bits = 12
	case clusters < 65525:
		f.bits = 16
	default:
		f.bits, f.root = 32, le.Uint32(b[44:])
	}
	f.table = make([]byte, tableSize*sector)
	if _, err := r.ReadAt(f.table, offset+reserved*sector); err != nil {
		return nil, fmt.Errorf("reading a FAT: %w", err)
	}
	return f, nil
}

// next returns the cluster that follows another, 0 after the last.
func (f *fat) next(c uint32) (uint32, error) {
	var v, bad uint32
	at := int(c) * f.bits / 8
	if at+4 > len(f.table) && at+f.bits/8+1 > len(f.table) {
		return 0, errors.New("a chain of clusters leads out of the file system")
	}
	switch f.bits {
	case 12:
		v = uint32(le.Uint16(f.table[at:]))
		if c%2 == 1 {
			v >>= 4
		}
		v, bad = v&0xfff, 0xff7
	case 16:
		v, bad = uint32(le.Uint16(f.table[at:])), 0xfff7
	default:
		v, bad = le.Uint32(f.table[at:])&0x0fffffff, 0x0ffffff7
	}
	switch {
	case v > bad:
		return 0, nil
	case v == bad || v < 2:
		return 0, errors.New("a chain of clusters is broken")
	}
	return v, nil
}

// chain reads a chain of clusters, at most so many bytes.
func (f *fat) chain(c uint32, most int64) ([]byte, error) {
	var b []byte
	for c != 0 && int64(len(b)) < most {
		if c < 2 {
			return nil, errors.New("a chain of clusters is broken")
		}
		part := make([]byte, min(f.cluster, most-int64(len(b))))
		if _, err := f.r.ReadAt(part, f.data+int64(c-2)*f.cluster); err != nil {
			return nil, fmt.Errorf("reading a cluster: %w", err)
		}
		b = append(b, part...)
		var err error
		if c, err = f.next(c); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// entry of a directory.
type entry struct {
	name      string
	directory bool
	first     uint32
	size      int64
}

const maxDirectory = 1 << 20

// list reads a directory; "" is the root.
func (f *fat) list(path string) ([]entry, error) {
	here, err := f.rootList()
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		if err != nil {
			return nil, err
		}
		e, ok := find(here, name)
		if !ok || !e.directory {
			return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		var b []byte
		if b, err = f.chain(e.first, maxDirectory); err == nil {
			here = entries(b)
		}
	}
	return here, err
}

func (f *fat) rootList() ([]entry, error) {
	if f.bits == 32 {
		b, err := f.chain(f.root, maxDirectory)
		return entries(b), err
	}
	b := make([]byte, 32*f.rootEntries)
	if _, err := f.r.ReadAt(b, f.rootOffset); err != nil {
		return nil, fmt.Errorf("reading a directory: %w", err)
	}
	return entries(b), nil
}

func find(list []entry, name string) (entry, bool) {
	for _, e := range list {
		if strings.EqualFold(e.name, name) {
			return e, true
		}
	}
	return entry{}, false
}

// entries reads those of a directory, with their long names.
func entries(b []byte) []entry {
	var all []entry
	var long []uint16
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		const deleted, longName, label, directory = 0xe5, 0x0f, 0x08, 0x10
		switch {
		case b[0] == deleted:
			long = nil
		case b[11] == longName:
			var part []uint16
			for _, r := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
				for i := r[0]; i < r[1]; i += 2 {
					if c := le.Uint16(b[i:]); c != 0 && c != 0xffff {
						part = append(part, c)
					}
				}
			}
			long = append(part, long...)
		case b[11]&label != 0:
			long = nil
		default:
			e := entry{directory: b[11]&directory != 0, first: uint32(le.Uint16(b[20:]))<<16 | uint32(le.Uint16(b[26:])), size: int64(le.Uint32(b[28:]))}
			const lowerName, lowerExtension = 0x08, 0x10 // as Windows NT has them
			e.name = lowered(b[:8], b[12]&lowerName != 0)
			if ext := lowered(b[8:11], b[12]&lowerExtension != 0); ext != "" {
				e.name += "." + ext
			}
			if long != nil {
				e.name = string(utf16.Decode(long))
			}
			long = nil
			all = append(all, e)
		}
	}
	return all
}

// lowered is a part of a short name.
func lowered(b []byte, lower bool) string {
	name := strings.TrimRight(string(b), " ")
	if lower {
		return strings.ToLower(name)
	}
	return name
}

// read reads a file.
func (f *fat) read(path string) ([]byte, error) {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	list, err := f.list(dir)
	if err != nil {
		return nil, err
	}
	e, ok := find(list, name)
	if !ok || e.directory {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	if e.size > maxImage {
		return nil, fmt.Errorf("%s has more than %d MiB", path, maxImage>>20)
	}
	if e.size == 0 {
		return nil, nil
	}
	b, err := f.chain(e.first, e.size)
	if err == nil && int64(len(b)) != e.size {
		err = errors.New("the file is cut off")
	}
	return b, err
}

// names lists the files of a directory, without those of none.
func (f *fat) names(path string) ([]string, error) {
	list, err := f.list(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range list {
		if !e.directory {
			names = append(names, e.name)
		}
	}
	return names, err
}

// systemPartition returns the offset of the EFI system partition of a disk (UEFI
// Specification, "GUID Partition Table"), 0 if the disk has no partitions.
func systemPartition(r io.ReaderAt) (int64, error) {
	for _, sector := range []int64{512, 4096} {
		h := make([]byte, 512)
		if _, err := r.ReadAt(h, sector); err != nil || !bytes.HasPrefix(h, []byte("EFI PART")) {
			continue
		}
		first, count, size := int64(le.Uint64(h[72:])), int64(le.Uint32(h[80:])), int64(le.Uint32(h[84:]))
		if size < 128 || size > 4096 || count > 1024 {
			return 0, errors.New("its partition table is malformed")
		}
		for n := range count {
			e := make([]byte, 128)
			if _, err := r.ReadAt(e, first*sector+n*size); err != nil {
				return 0, fmt.Errorf("reading the partition table: %w", err)
			}
			system := guid{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
			if guid(e[:16]) == system {
				return int64(le.Uint64(e[32:])) * sector, nil
			}
		}
		return 0, errors.New("it has no EFI system partition")
	}
	return 0, nil
}
