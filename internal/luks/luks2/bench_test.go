package luks2_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/luks/luks2"
	"unlock/internal/secret"
)

// The budgets are in CPU time, which other programs on the machine do not change
// much, and the benchmarks fail when they are exceeded.

// cpu returns the CPU time used by this process (unix.RUSAGE_SELF) or by the
// children it has waited for (unix.RUSAGE_CHILDREN).
func cpu(b testing.TB, who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(unix.TimevalToNsec(u.Utime) + unix.TimevalToNsec(u.Stime))
}

// stopwatch returns a function that tells the time since: of the clock, or of the
// CPU if that is less, because a busy machine makes everything slow.
func stopwatch(tb testing.TB) func() time.Duration {
	start, used := time.Now(), cpu(tb, unix.RUSAGE_SELF)
	return func() time.Duration { return min(time.Since(start), cpu(tb, unix.RUSAGE_SELF)-used) }
}

// budget reports the CPU time per operation since start, and fails above limit.
func budget(b *testing.B, start, limit time.Duration) {
	used := (cpu(b, unix.RUSAGE_SELF) - start) / time.Duration(b.N)
	b.ReportMetric(float64(used.Microseconds())/1000, "cpu-ms/op")
	if used > limit {
		b.Errorf("%v of CPU, more than %v", used, limit)
	}
}

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
	start := cpu(b, unix.RUSAGE_SELF)
	for b.Loop() {
		if _, err := luks2.Format(f, testSize, p, formatOptions); err != nil {
			b.Fatal(err)
		}
	}
	budget(b, start, 20*time.Millisecond)
}

func BenchmarkOpen(b *testing.B) {
	f, p := imageFile(b), pass(b, "first")
	if _, err := luks2.Format(f, testSize, p, formatOptions); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	start := cpu(b, unix.RUSAGE_SELF)
	for b.Loop() {
		readAndOpen(b, f, p)
	}
	budget(b, start, 10*time.Millisecond)
}

// BenchmarkMany opens 24 volumes of a set at once, with one Deriver, as a boot does. Where
// other programs are about, a processor does less in its time: the clock is judged, and
// quiet-cpu-ms measured, only where two processors were there for them: in turns in which
// threads stood in the queue for a processor for less than a tenth of the CPU time. The
// quickest turn is judged, as others only ever make one slower; the median is printed.
func BenchmarkMany(b *testing.B) {
	const volumes = 24
	f, p := imageFile(b), pass(b, "first")
	if _, err := luks2.Format(f, testSize, p, formatOptions); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	begin := cpu(b, unix.RUSAGE_SELF)
	var ratios []float64
	var quiet []time.Duration
	for b.Loop() {
		start, used, queued := time.Now(), cpu(b, unix.RUSAGE_SELF), queuedFor(b)
		var all sync.WaitGroup
		d := luks2.NewDeriver(p)
		for range volumes {
			all.Go(func() { readAndOpenWith(b, f, d) })
		}
		all.Wait()
		d.Wipe()
		used = cpu(b, unix.RUSAGE_SELF) - used
		clock := time.Since(start)
		if queuedFor(b)-queued < used/10 {
			quiet = append(quiet, used)
			ratios = append(ratios, float64(clock)/float64(used))
		}
	}
	budget(b, begin, volumes*10*time.Millisecond)
	if len(ratios) == 0 || runtime.GOMAXPROCS(0) == 1 {
		b.Log("other programs kept the processors busy: the clock was not judged")
		return
	}
	slices.Sort(quiet)
	b.ReportMetric(float64(quiet[len(quiet)/2].Microseconds())/1000, "quiet-cpu-ms/op")
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "clock/cpu")
	if best := ratios[0]; best > 0.6 {
		b.Errorf("by the clock %.2f of the CPU time at best, more than 0.6", best)
	}
}

// queuedFor returns for how long this process's threads could have run and had no processor
// (proc_pid_schedstat, second field, ns).
func queuedFor(b *testing.B) time.Duration {
	files, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil || len(files) == 0 {
		b.Fatal("the kernel does not say how long threads waited for a processor: ", err)
	}
	var all time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // a thread that has ended
		}
		var ran, queued time.Duration
		if _, serr := fmt.Sscan(string(text), &ran, &queued); err != nil || serr != nil {
			b.Fatal(err, serr)
		}
		all += queued
	}
	return all
}

// BenchmarkArgon2 opens one image here and with cryptsetup, by turns; the ratio is
// the median of the turns'. The CPU time of cryptsetup includes starting the process.
func BenchmarkArgon2(b *testing.B) {
	f, p := imageFile(b), pass(b, "first")
	out, err := cryptsetup(b, "first", "luksFormat", "-q", "--pbkdf", "argon2id", "--pbkdf-memory", "131072",
		"--pbkdf-force-iterations", "4", "--pbkdf-parallel", "2", f.Name(), "-")
	if err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	b.ReportAllocs()
	var ours, theirs time.Duration
	var ratios []float64
	for b.Loop() {
		self, children := cpu(b, unix.RUSAGE_SELF), cpu(b, unix.RUSAGE_CHILDREN)
		readAndOpen(b, f, p)
		if out, err := cryptsetup(b, "first", "open", "--test-passphrase", "--key-file=-", f.Name()); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
		self, children = cpu(b, unix.RUSAGE_SELF)-self, cpu(b, unix.RUSAGE_CHILDREN)-children
		ours, theirs, ratios = ours+self, theirs+children, append(ratios, float64(self)/float64(children))
	}
	b.ReportMetric(float64((ours / time.Duration(b.N)).Milliseconds()), "cpu-ms-here/op")
	b.ReportMetric(float64((theirs / time.Duration(b.N)).Milliseconds()), "cpu-ms-cryptsetup/op")
	slices.Sort(ratios)
	ratio := ratios[len(ratios)/2]
	b.ReportMetric(ratio, "ratio")
	if ratio > 1.3 {
		b.Errorf("%.2f times the CPU time of cryptsetup, more than 1.3", ratio)
	}
}

func readAndOpen(b *testing.B, f *os.File, p *secret.Bytes) {
	d := luks2.NewDeriver(p)
	defer d.Wipe()
	readAndOpenWith(b, f, d)
}

func readAndOpenWith(b *testing.B, f *os.File, d *luks2.Deriver) {
	h, err := luks2.Read(f, testSize, luks2.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	payload, err := h.OpenWith(b.Context(), d)
	if err != nil {
		b.Fatal(err)
	}
	payload.Wipe()
}
