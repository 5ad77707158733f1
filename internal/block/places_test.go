package block

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"unlock/test/program"
)

// TestPlaces holds what a disk is sampled at, whatever its size.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 512, mib, 2*mib + 512, 3 * mib, 3*mib + 513, 20 * mib, 40 * mib, gib, 75e9, 300 * gib, 7_500_000_000_000 / 4096 * 4096, 64 * tib} {
		list := places(size)
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) || len(list) > samples {
			t.Errorf("%d bytes: %d places, or not in order", size, len(list))
		}
		for _, at := range list {
			if at < mib || at >= max(size-mib, mib) || at%sampleSize != 0 {
				t.Errorf("%d bytes: sample at %d", size, at)
			}
		}
		if between := (size - 2*mib) / sampleSize; between > samples && len(list) != samples {
			t.Errorf("%d bytes: %d samples", size, len(list))
		}
		var widest, last int64 = 0, mib
		for _, at := range append(list, max(size-mib, mib)) {
			widest, last = max(widest, at-last), at
		}
		if widest > max(size/100, sampleSize) {
			t.Errorf("%d bytes: nothing is looked at for %d", size, widest)
		}
		for at := int64(mib); at < size-mib-sampleSize; at *= 2 {
			if !slices.Contains(list, at) {
				t.Errorf("%d bytes: no sample at %d, a power of two", size, at)
			}
		}
	}
}

// TestZapped: what is left of a disk whose beginning and end were erased, as sgdisk
// --zap-all, wipefs and dd do it, is not blank: file systems on the whole disk and in
// a partition that begins where partitions do.
func TestZapped(t *testing.T) {
	t.Parallel()
	makers := map[string]string{
		"ext4":             "mkfs.ext4 -q -F -E offset=$START $IMG $BLOCKS",
		"ext4, 1 KiB":      "mkfs.ext4 -q -F -b 1024 -E offset=$START $IMG $((BLOCKS / 4))k",
		"xfs":              "truncate -s $((BLOCKS * 4096)) $IMG.fs && mkfs.xfs -q $IMG.fs && dd if=$IMG.fs of=$IMG bs=1M seek=$((START >> 20)) conv=notrunc,sparse status=none",
		"btrfs":            "truncate -s $((BLOCKS * 4096)) $IMG.fs && mkfs.btrfs -q $IMG.fs && dd if=$IMG.fs of=$IMG bs=1M seek=$((START >> 20)) conv=notrunc,sparse status=none",
		"swap":             "truncate -s $((BLOCKS * 4096)) $IMG.fs && mkswap $IMG.fs >/dev/null && dd if=$IMG.fs of=$IMG bs=1M seek=$((START >> 20)) conv=notrunc,sparse status=none",
		"LUKS2":            "truncate -s $((BLOCKS * 4096)) $IMG.fs && printf x | " + luksFormat + "$IMG.fs - && dd if=$IMG.fs of=$IMG bs=1M seek=$((START >> 20)) conv=notrunc,sparse status=none",
		"LVM's metadata":   `printf 'VG0 { id = "x" }' | dd of=$IMG bs=1 seek=$((START + 4608)) conv=notrunc status=none`,
		"ZFS' first label": `printf 'version' | dd of=$IMG bs=1 seek=$((START + 16400)) conv=notrunc status=none`,
	}
	for name, script := range makers {
		for _, start := range []int64{0, mib, 4 * mib} {
			if start == 0 && (name == "swap" || name == "LUKS2" || strings.Contains(name, "'")) {
				continue // lies within the first MiB, and is gone
			}
			t.Run(fmt.Sprintf("%s at %d", name, start), func(t *testing.T) {
				t.Parallel()
				const size = 1 << 30
				img := filepath.Join(t.TempDir(), "img")
				must(t, os.WriteFile(img, nil, 0o600))
				must(t, os.Truncate(img, size))
				env := fmt.Sprintf("START=%d; BLOCKS=%d; ", start, (size-mib-max(start, mib))/4096)
				if start == 0 {
					env = fmt.Sprintf("START=0; BLOCKS=%d; ", size/4096)
				}
				program.Run(t, shell(env+script, img))
				zap := fmt.Sprintf("dd if=/dev/zero of=$IMG bs=1M count=1 conv=notrunc status=none && dd if=/dev/zero of=$IMG bs=1M count=1 seek=%d conv=notrunc status=none", size/mib-1)
				if out, err := shell(zap, img).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if got := content(t, img, size); got.Kind != Foreign {
					t.Errorf("Content = %v (%s), want foreign", got.Kind, got.What)
				}
			})
		}
	}
}

// BenchmarkBlank counts what it costs to call a disk blank, and fails above 300 reads.
func BenchmarkBlank(b *testing.B) {
	for _, size := range []int64{40 * mib, 75e9, 7_500_000_000_000} {
		b.Run(fmt.Sprintf("%d GB", size/1e9), func(b *testing.B) {
			dev := device(size, 0, "")
			for b.Loop() {
				dev.read, dev.reads = 0, 0
				if c := Probe(dev, size); c.Kind != Blank {
					b.Fatal(c)
				}
			}
			b.ReportMetric(float64(dev.reads), "reads/disk")
			b.ReportMetric(float64(dev.read), "bytes/disk")
			if dev.reads > 300 {
				b.Errorf("%d reads, more than 300", dev.reads)
			}
		})
	}
}
