package block

import (
	"io"
	"slices"
	"sort"
	"sync"
)

const (
	sampleSize  = 4 << 10 // bytes of a sample
	samples     = 256     // on a device that has room for as many between its first and last MiB
	readers     = 16      // samples that are read at once: a network volume takes a millisecond for each
	gib         = 1 << 30
	tib         = 1 << 40
	partition   = mib // where partitions usually begin: at 2048 sectors
	xfsMaxGroup = tib - sampleSize
)

// places returns where a device of size bytes is sampled beside its first and last MiB,
// ascending: where the remains of file systems lie that lost their beginning, on the
// whole device or in a partition from 1 MiB on; and as many more as are left, spread
// evenly. All are multiples of sampleSize. A device that has no room for so many is
// read as a whole.
func places(size int64) []int64 {
	first, end := int64(mib), (size-mib)/sampleSize*sampleSize
	room := (end - first) / sampleSize
	if room < samples {
		var all []int64
		for at := first; at < size-mib; at += sampleSize {
			all = append(all, at)
		}
		return all
	}
	var list []int64
	add := func(at int64) {
		at = at / sampleSize * sampleSize
		if at >= first && at < end {
			list = append(list, at)
		}
	}
	for at := int64(mib); 0 < at && at < size; at *= 2 { // until it overflows
		add(at)
	}
	for _, start := range []int64{0, partition} {
		length := size - 2*start // of a partition: a table's copy is behind it
		// Btrfs has its superblock at 64 KiB and mirrors, ZFS a label of 256 KiB that
		// begins with nothing, LVM its metadata behind a page.
		for _, at := range []int64{0, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 4 * mib, 64 * mib, 256 * gib} {
			add(start + at)
		}
		// Ext4 has copies of its superblock in groups of 128 MiB; in those of 8 MiB
		// where blocks are small.
		for _, group := range []int64{1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343} {
			add(start + group*128*mib)
		}
		for _, group := range []int64{1, 3, 5, 7} {
			add(start + group*8*mib)
		}
		// XFS makes four allocation groups, or more if they would be larger than 1 TiB.
		group := min((length/sampleSize+3)/4*sampleSize, xfsMaxGroup)
		for i := int64(1); i < 8; i++ {
			add(start + i*group)
		}
	}
	ascending(list)
	list = slices.Compact(list)
	// Steps of the rest are not those of anything else; they end where the others leave
	// no more samples.
	left := int64(samples - len(list))
	for i := range left {
		at := first + (2*i+1)*room/(2*left)*sampleSize
		for slices.Contains(list, at) {
			at += sampleSize
		}
		list = append(list, at)
	}
	ascending(list)
	return list
}

// ascending sorts as slices.Sort does, by the code that sorts everything else.
func ascending(list []int64) {
	sort.Slice(list, func(i, j int) bool { return list[i] < list[j] })
}

// sample returns the first byte in any of the places that is not zero, or -1.
func sample(r io.ReaderAt, size int64) (at int64, err error) {
	list := places(size)
	found := make([]int64, readers)
	errs := make([]error, readers)
	var wait sync.WaitGroup
	for n := range readers {
		found[n] = -1
		wait.Go(func() {
			b := make([]byte, sampleSize)
			for i := n; i < len(list); i += readers {
				b = b[:min(sampleSize, size-list[i])]
				if errs[n] = readAt(r, b, list[i]); errs[n] != nil {
					return
				}
				if j := firstNonZero(b); j >= 0 {
					found[n] = list[i] + int64(j)
					return
				}
			}
		})
	}
	wait.Wait()
	at = -1
	for n := range readers {
		if errs[n] != nil {
			return -1, errs[n]
		}
		if found[n] >= 0 && (at < 0 || found[n] < at) {
			at = found[n]
		}
	}
	return at, nil
}
