package luks2_test

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
	"unlock/test/program"
)

const (
	testUUID = "0d5bd3a4-9d41-4f9c-8c6e-3f2a1b7c9e55"
	testSize = 24 << 20 // bytes
	sector   = 512      // bytes; a disk writes one as a whole or not at all
)

// disk is a sparse device of testSize bytes that records what is done to it.
type disk struct {
	sectors map[int64][sector]byte // by number; absent ones are zero
	log     []op
}

// op is a write, or a sync if data is nil.
type op struct {
	offset int64
	data   []byte
}

func newDisk() *disk { return &disk{sectors: map[int64][sector]byte{}} }

func (d *disk) clone() *disk { return &disk{sectors: maps.Clone(d.sectors)} }

func (d *disk) ReadAt(b []byte, offset int64) (int, error) {
	n := 0
	for n < len(b) && offset < testSize {
		s := d.sectors[offset/sector]
		m := copy(b[n:], s[offset%sector:])
		n, offset = n+m, offset+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(b []byte, offset int64) (int, error) {
	d.log = append(d.log, op{offset, bytes.Clone(b)})
	for i := 0; i < len(b); {
		s := d.sectors[(offset+int64(i))/sector]
		m := copy(s[(offset+int64(i))%sector:], b[i:])
		d.sectors[(offset+int64(i))/sector] = s
		i += m
	}
	return len(b), nil
}

func (d *disk) Sync() error {
	d.log = append(d.log, op{})
	return nil
}

// save writes the disk to a file and returns its path.
func (d *disk) save(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i, s := range d.sectors {
		if _, err := f.WriteAt(s[:], i*sector); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(testSize); err != nil {
		t.Fatal(err)
	}
	return path
}

// load reads a file of testSize bytes.
func load(t *testing.T, path string) *disk {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := newDisk()
	for i := 0; i+sector <= len(b) && i < testSize; i += sector {
		if s := [sector]byte(b[i:]); s != [sector]byte{} {
			d.sectors[int64(i/sector)] = s
		}
	}
	return d
}

func pass(t testing.TB, s string) *secret.Bytes {
	p := secret.Take([]byte(s))
	t.Cleanup(p.Wipe)
	return p
}

// format returns a disk with a volume that opens with "first".
func format(t testing.TB) (*disk, *luks2.Header) {
	t.Helper()
	d := newDisk()
	h, err := luks2.Format(d, testSize, pass(t, "first"), formatOptions)
	if err != nil {
		t.Fatal(err)
	}
	return d, h
}

var formatOptions = luks2.FormatOptions{UUID: testUUID, SectorSize: 4096}

// cryptsetup runs it with stdin and returns what it prints.
func cryptsetup(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	program.Need(t, "cryptsetup")
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustCryptsetup(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := cryptsetup(t, stdin, args...)
	if err != nil {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
