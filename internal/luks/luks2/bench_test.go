package luks2_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"unlock/internal/luks/luks2"
)

// imageFile returns a file of testSize bytes in memory, if the system has such a
// place, as disks are not what is measured.
func imageFile(b *testing.B) *os.File {
	dir, err := os.MkdirTemp("/dev/shm", "luks2")
	if err != nil {
		dir = b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	f, err := os.Create(filepath.Join(dir, "disk.img"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if err := f.Truncate(testSize); err != nil {
		b.Fatal(err)
	}
	return f
}

func BenchmarkFormat(b *testing.B) {
	f, p := imageFile(b), pass(b, "first")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := luks2.Format(f, testSize, p, formatOptions); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	f, p := imageFile(b), pass(b, "first")
	if _, err := luks2.Format(f, testSize, p, formatOptions); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h, err := luks2.Read(f, testSize, luks2.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		payload, err := h.Open(b.Context(), p)
		if err != nil {
			b.Fatal(err)
		}
		payload.Wipe()
	}
}

// BenchmarkArgon2 opens one image with cryptsetup and here, by turns, and reports
// the ratio; the time of cryptsetup includes starting the process.
func BenchmarkArgon2(b *testing.B) {
	f, p := imageFile(b), pass(b, "first")
	out, err := cryptsetup("first", "luksFormat", "-q", "--pbkdf", "argon2id", "--pbkdf-memory", "131072",
		"--pbkdf-force-iterations", "4", "--pbkdf-parallel", "2", f.Name(), "-")
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	var ours, theirs time.Duration
	for b.Loop() {
		start := time.Now()
		h, err := luks2.Read(f, testSize, luks2.Limits{})
		if err != nil {
			b.Fatal(err)
		}
		payload, err := h.Open(b.Context(), p)
		if err != nil {
			b.Fatal(err)
		}
		payload.Wipe()
		ours += time.Since(start)

		start = time.Now()
		if out, err := cryptsetup("first", "open", "--test-passphrase", "--key-file=-", f.Name()); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		theirs += time.Since(start)
	}
	b.ReportMetric(float64(ours.Microseconds())/1000/float64(b.N), "ms-here/op")
	b.ReportMetric(float64(theirs.Microseconds())/1000/float64(b.N), "ms-cryptsetup/op")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}
