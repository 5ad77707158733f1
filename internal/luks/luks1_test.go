package luks_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"unlock/internal/luks"
)

// Offsets in a LUKS1 header.
const (
	cipherName1    = 8
	cipherMode1    = 40
	hashSpec1      = 72
	payloadOffset1 = 104
	keyBytes1      = 108
	digest1        = 112
	digestIter1    = 164
	uuid1          = 168
	slot0          = 208 // active, iterations, salt, offset, stripes
	slot1          = slot0 + 48
)

func TestHostileLUKS1(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	f := image(t, size)
	cryptsetup(t, "first", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", "--uuid", testUUID, f.Name(), "-")
	base, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	put := func(at int, v any) func(b []byte) {
		return func(b []byte) {
			switch v := v.(type) {
			case string:
				copy(b[at:], v+"\x00")
			case int:
				binary.BigEndian.PutUint32(b[at:], uint32(v))
			}
		}
	}
	tests := []struct {
		name string
		edit func(b []byte)
		size int64
		want string // part of the error of Read or Open; "" if it must open
	}{
		{"untouched", func([]byte) {}, size, ""},
		{"null cipher", put(cipherName1, "cipher_null"), size, `cipher "cipher_null"`},
		{"cipher not terminated", func(b []byte) { copy(b[cipherName1:], strings.Repeat("a", 32)) }, size, "is not aes"},
		{"table parameters", put(cipherMode1, "xts-plain64 0 /dev/sda 0"), size, "is not aes in xts-plain64"},
		{"mode ecb", put(cipherMode1, "ecb"), size, `mode "ecb"`},
		{"mode cbc", put(cipherMode1, "cbc-essiv:sha256"), size, `mode "cbc-essiv:sha256"`},
		{"hash crc32", put(hashSpec1, "crc32"), size, `hash "crc32"`},
		{"hash empty", put(hashSpec1, ""), size, `hash ""`},
		{"key of 0 bytes", put(keyBytes1, 0), size, "key of 0 bytes"},
		{"key of 16 bytes", put(keyBytes1, 16), size, "key of 16 bytes"},
		{"key of 4 GiB", put(keyBytes1, math.MaxUint32), size, "key of 4294967295 bytes"},
		{"key whose material wraps to 0", put(keyBytes1, 1<<27), size, "key of 134217728 bytes"},
		{"digest of 0 iterations", put(digestIter1, 0), size, "digest with 0 iterations"},
		{"digest of 2^32-1 iterations", put(digestIter1, math.MaxUint32), size, "digest with 4294967295 iterations"},
		{"digest of another key", put(digest1, "\x01\x02\x03"), size, "no keyslot opens"},
		{"payload at 0", put(payloadOffset1, 0), size, "payload at byte 0"},
		{"payload in the key material", put(payloadOffset1, 16), size, "begins before the key material ends"},
		{"payload beyond the device", put(payloadOffset1, math.MaxUint32), size, "of a device of"},
		{"payload at the end", put(payloadOffset1, size/512), size, "of a device of"},
		{"device ends in the key material", func([]byte) {}, 64 << 10, "of a device of 65536 bytes"},
		{"UUID with a path", put(uuid1, "../../../etc/passwd"), size, "is not a UUID"},
		{"UUID empty", put(uuid1, ""), size, "is not a UUID"},
		{"keyslot neither in use nor free", put(slot0, 1), size, "neither in use nor free"},
		{"no keyslot in use", put(slot0, 0xdead), size, "no LUKS1 keyslot"},
		{"0 iterations", put(slot0+4, 0), size, "has no iterations"},
		{"2^32-1 iterations", put(slot0+4, math.MaxUint32), size, "no LUKS1 keyslot"},
		{"key material in the header", put(slot0+40, 0), size, "overlaps what is before it"},
		{"key material beyond the payload", put(slot0+40, 5000), size, "begins before the key material ends"},
		{"key material at 2 TiB", put(slot0+40, math.MaxUint32), size, "beyond 4194304"},
		{"1 stripe", put(slot0+44, 1), size, "1 stripes"},
		{"2^32-1 stripes", put(slot0+44, math.MaxUint32), size, "4294967295 stripes"},
		{"another keyslot over this one", func(b []byte) { copy(b[slot1:slot1+48], b[slot0:slot0+48]) }, size, "overlaps what is before it"},
		{"material of a free keyslot out of place", put(slot1+40, math.MaxUint32), size, ""},
		{"unusable keyslot before the good one", func(b []byte) {
			copy(b[slot1:slot1+48], b[slot0:slot0+48])
			put(slot0+4, math.MaxUint32)(b)
			put(slot0+40, 1024)(b)
		}, size, ""},
		{"wrong keyslot before the good one", func(b []byte) {
			copy(b[slot1:slot1+48], b[slot0:slot0+48])
			put(slot0+40, 1024)(b)
		}, size, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := append([]byte(nil), base...)
			tt.edit(b)
			d, work := &countedReads{r: bytes.NewReader(b[:tt.size])}, &countedWork{Context: t.Context()}
			h, err := luks.Read(d, tt.size, luks.Limits{})
			if err == nil {
				if p, err := h.Open(work, pass(t, "wrong")); err == nil {
					p.Wipe()
					t.Error("opens with a wrong passphrase")
				}
				var p *luks.Payload
				if p, err = h.Open(work, pass(t, "first")); err == nil {
					if p.Type != "LUKS1" || p.Cipher != "aes-xts-plain64" || p.Key.Len() != 64 || p.Offset != 2<<20 || p.Size != 2<<20 || p.SectorSize != 512 || p.UUID != testUUID {
						t.Errorf("payload %+v", p)
					}
					p.Wipe()
				}
			}
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if errors.Is(err, luks.ErrNotLUKS) {
				t.Error("a LUKS1 header is called none")
			}
			// The volume takes some thousand iterations to open, twice.
			if d.bytes > 4*size || work.asked*iterationsBetween > 200_000 {
				t.Errorf("read %d bytes, derived for about %d iterations", d.bytes, work.asked*iterationsBetween)
			}
		})
	}
}

// countedReads counts the bytes that are read.
type countedReads struct {
	r     io.ReaderAt
	bytes int64
}

func (c *countedReads) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(b, off)
	c.bytes += int64(n)
	return n, err
}

// iterationsBetween is how many iterations of PBKDF2 pass between two looks at the context.
const iterationsBetween = 4096

// countedWork counts how often it is asked whether it has ended, and ends when it
// has been asked as often as limit says, if that is not 0.
type countedWork struct {
	context.Context
	end   context.CancelCauseFunc
	limit int
	asked int
}

// errWorkDone ends a countedWork.
var errWorkDone = errors.New("the boot's deadline")

func (c *countedWork) Err() error {
	if c.asked++; c.limit > 0 && c.asked >= c.limit {
		c.end(errWorkDone)
	}
	return c.Context.Err()
}

// TestLUKS1Deadline: a header may ask for more work than there is time for.
func TestLUKS1Deadline(t *testing.T) {
	t.Parallel()
	f := image(t, 4<<20)
	cryptsetup(t, "first", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", f.Name(), "-")
	if _, err := f.WriteAt([]byte{0, 0x0f, 0x42, 0x40}, slot0+4); err != nil { // 1,000,000
		t.Fatal(err)
	}
	h, err := luks.Read(f, 4<<20, luks.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	work := &countedWork{Context: ctx, end: cancel, limit: 10}
	if _, err := h.Open(work, pass(t, "first")); !errors.Is(err, errWorkDone) {
		t.Errorf("Open = %v, want the cause", err)
	}
	if after := work.asked - work.limit; after > 3 {
		t.Errorf("asked %d times more whether the deadline is over", after)
	}
}

// TestNotLUKS tells "nothing here" from "cannot be read".
func TestNotLUKS(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"empty":     "",
		"one byte":  "L",
		"magic":     "LUKS\xba\xbe\x00\x01",
		"zeros":     strings.Repeat("\x00", 8<<20),
		"text":      strings.Repeat("text ", 1<<20),
		"LUKS only": strings.Repeat("LUKS", 1<<20),
	} {
		if _, err := luks.Read(strings.NewReader(content), int64(len(content)), luks.Limits{}); !errors.Is(err, luks.ErrNotLUKS) {
			t.Errorf("%s: Read = %v, want ErrNotLUKS", name, err)
		}
	}
	for name, r := range map[string]io.ReaderAt{
		"unreadable": broken{0, math.MaxInt64},
		"unreadable where a secondary header may be": broken{64 << 10, 64<<10 + 1},
		"shorter than it says":                       strings.NewReader("short"),
	} {
		if _, err := luks.Read(r, 8<<20, luks.Limits{}); err == nil || errors.Is(err, luks.ErrNotLUKS) {
			t.Errorf("%s: Read = %v, want another error than ErrNotLUKS", name, err)
		}
	}
}

// broken is a device of zeros that cannot be read from start to end.
type broken struct{ start, end int64 }

func (d broken) ReadAt(b []byte, offset int64) (int, error) {
	if offset < d.end && offset+int64(len(b)) > d.start {
		return 0, errors.New("input/output error")
	}
	clear(b)
	return len(b), nil
}
