package block

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// sparse is a device of zeros but for some bytes. It counts what is read of it
// and fails where it is told to.
type sparse struct {
	size   int64
	data   map[int64]string
	failAt int64 // reading this byte fails, if it is not negative
	err    error
	mu     sync.Mutex
	read   int64
	reads  int
	beyond bool // a read left the device
}

func device(size int64, at int64, data string) *sparse {
	return &sparse{size: size, data: map[int64]string{at: data}, failAt: -1}
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	s.read += int64(len(p))
	s.beyond = s.beyond || off < 0 || off+int64(len(p)) > s.size
	clear(p)
	for at, data := range s.data {
		for i := range len(data) {
			if j := at + int64(i) - off; j >= 0 && j < int64(len(p)) {
				p[j] = data[i]
			}
		}
	}
	if n := s.failAt - off; s.failAt >= 0 && n >= 0 && n < int64(len(p)) {
		return int(n), s.err
	}
	return len(p), nil
}

// TestProbeRule holds the definition of blank: the first and the last MiB, and samples
// between them.
func TestProbeRule(t *testing.T) {
	const big = 320 * mib
	for _, test := range []struct {
		name     string
		size, at int64
		data     string
		want     ContentKind
		what     string
	}{
		{"zeros", big, 0, "", Blank, "blank"},
		{"zeros of one sector", 512, 0, "", Blank, "blank"},
		{"zeros of the largest size", math.MaxInt64, 0, "", Blank, "blank"},
		{"zeros of odd size", 3*mib + 513, 0, "", Blank, "blank"},
		{"first byte", big, 0, "x", Foreign, "data at byte 0"},
		{"last byte of the first MiB", big, mib - 1, "x", Foreign, "data at byte 1048575"},
		{"first byte after the first MiB", big, mib, "x", Foreign, "data at byte 1048576"},
		{"last byte of a chunk that is read for signatures", big, mib + chunkSize - 1, "x", Foreign, "data at byte 1114111"},
		{"first byte after that, beside all samples", big, mib + chunkSize + 2*sampleSize, "x", Blank, "blank"},
		{"middle", big, big / 2, "x", Foreign, "data at byte 167772160"},
		{"a power of two", big, 128 * mib, "x", Foreign, "data at byte 134217728"},
		{"between samples", big, 128*mib + sampleSize, "x", Blank, "blank"},
		{"last byte before the last MiB", big, big - mib - 1, "x", Blank, "blank"},
		{"first byte of the last MiB", big, big - mib, "x", Foreign, fmt.Sprint("data at byte ", big-mib)},
		{"last byte", big, big - 1, "x", Foreign, fmt.Sprint("data at byte ", big-1)},
		{"last byte of odd size", 3*mib + 513, 3*mib + 512, "x", Foreign, "data at byte 3146240"},
		{"middle of 2 MiB", 2 * mib, mib, "x", Foreign, "data at byte 1048576"},
		{"middle of 1.5 MiB", mib * 3 / 2, mib * 3 / 4, "x", Foreign, "data at byte 786432"},
		{"last byte of one sector", 512, 511, "x", Foreign, "data at byte 511"},
		{"LUKS magic that is cut off", 512, 508, "LUKS\xba\xbe", Foreign, "data at byte 508"},
		{"LUKS magic without the rest", big, 0, "LUKS\xba\xbe", LUKS, "LUKS0 volume"},
		{"LUKS magic at a wrong place", big, 8192, "LUKS\xba\xbe", Foreign, "data at byte 8192"},
		{"second LUKS magic at a wrong place", big, 8192, "SKUL\xba\xbe", Foreign, "data at byte 8192"},
		{"second LUKS magic beyond its places", big, 8 * mib, "SKUL\xba\xbe", Foreign, "data at byte 8388608"},
		{"size 0", 0, 0, "", Unreadable, "its size is 0 bytes"},
		{"negative size", -1, 0, "", Unreadable, "its size is -1 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Probe(device(test.size, test.at, test.data), test.size)
			if got.Kind != test.want || got.What != test.what {
				t.Errorf("Probe = %v (%s), want %v (%s)", got.Kind, got.What, test.want, test.what)
			}
		})
	}
}

func TestProbeUnreadable(t *testing.T) {
	const size = 320 * mib
	for _, failAt := range []int64{8 * mib, 128*mib + 5, 0, 5000, mib - 1, mib, 2*mib + 10, 4 * mib, size - 3087*512, size - mib, size - 1} {
		planted := []string{"", "EFI PART"}
		if slices.Contains(places(size), failAt/sampleSize*sampleSize) && failAt > 5*mib {
			planted = planted[:1] // samples are for what has no signature
		}
		for _, test := range []struct {
			name string
			err  error
			want string
		}{
			{"error", syscall.EIO, "input/output error"},
			{"end of file", io.EOF, "unexpected EOF"},
			{"no progress", nil, "unexpected EOF"},
		} {
			t.Run(fmt.Sprint(test.name, " at ", failAt), func(t *testing.T) {
				for _, data := range planted {
					dev := device(size, 512, data)
					dev.failAt, dev.err = failAt, test.err
					got := Probe(dev, size)
					want := fmt.Sprintf("reading byte %d: %s", failAt, test.want)
					if got.Kind != Unreadable || got.What != want {
						t.Errorf("Probe with %q = %v (%s), want unreadable (%s)", data, got.Kind, got.What, want)
					}
				}
			})
		}
	}
}

// TestProbeQuick: a volume is known by its beginning, and by its end as no member
// of an array.
func TestProbeQuick(t *testing.T) {
	dev := device(320*mib, 0, "LUKS\xba\xbe\x00\x02")
	dev.failAt, dev.err = 5*mib, errors.New("must not be read")
	if got := Probe(dev, dev.size); got.Kind != LUKS || dev.read > 3*chunkSize {
		t.Errorf("Probe = %v after %d bytes, want LUKS after %d", got.Kind, dev.read, 3*chunkSize)
	}
}

// TestProbeHostileHeader: what is printed at a console comes from the disk.
func TestProbeHostileHeader(t *testing.T) {
	header := make([]byte, 512)
	copy(header, "LUKS\xba\xbe\x00\x02")
	copy(header[24:], "\x1b[2Jlabel that is not ended at all by any NUL byte")
	copy(header[168:], "\x1b]0;uuid that is not ended by NUL either")
	got := Probe(device(5*mib, 0, string(header)), 5*mib)
	if got.What != `LUKS2 volume "\x1b[2Jlabel that is not ended at all by any NUL by"` || got.UUID != "" {
		t.Errorf("Probe = %+v", got)
	}
}

// TestSignatures plants each signature alone, at each of its places.
func TestSignatures(t *testing.T) {
	const size = 320*mib + 7*512
	for _, s := range signatures(size) {
		for _, off := range s.at {
			if off < 0 {
				off += size
			}
			data := s.magic
			if s.name == "MBR partition table" { // its condition
				off, data = 446, "\x80\x00\x00\x00\x83\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00"+strings.Repeat("\x00", 48)+data
			}
			got := Probe(device(size, off, data), size)
			if want, _, _ := strings.Cut(s.name, " "); got.Kind != Foreign || strings.HasPrefix(got.What, "data at byte") || s.also == nil && !strings.HasPrefix(got.What, want) {
				t.Errorf("Probe of %s at byte %d of %d = %v (%s)", s.name, off, size, got.Kind, got.What)
			}
		}
	}
}

// FuzzProbe puts bytes anywhere on a device. Whatever they are, Probe stays on
// the device, reads little of it, and calls nothing blank whose ends are not.
func FuzzProbe(f *testing.F) {
	const size = 5 * mib
	for i, s := range signatures(size) {
		f.Add(int64(size+i*512), max(s.at[0], 0), []byte(s.magic))
	}
	f.Add(int64(700), int64(0), []byte("LUKS\xba\xbe\x00\x02"))
	f.Add(int64(mib), int64(512<<10), []byte("SKUL\xba\xbe\x00\x02"))
	f.Add(int64(math.MaxInt64), int64(math.MaxInt64-5), []byte("x"))
	f.Add(int64(size), int64(0x400), bytes.Repeat([]byte("\x53\xef"), 512))
	f.Fuzz(func(t *testing.T, size, at int64, data []byte) {
		dev := device(size, at, string(data))
		c := Probe(dev, size)
		if dev.beyond || dev.read > 7*mib/2 {
			t.Errorf("read %d bytes of %d, beyond the device: %t", dev.read, size, dev.beyond)
		}
		if c.What == "" {
			t.Errorf("%v without explanation", c.Kind)
		}
		if c.Kind != Blank {
			return
		}
		for i, b := range data {
			off := at + int64(i)
			if sampled := slices.Contains(places(size), off/sampleSize*sampleSize); b != 0 && off >= 0 && off < size && (off < mib || off >= size-mib || sampled) {
				t.Fatalf("blank with %#x at byte %d of %d", b, off, size)
			}
		}
	})
}
