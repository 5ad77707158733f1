package trail_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/cmd/unlockctl/internal/trail"
	"unlock/test/cloudtrail"
)

// BenchmarkReadAll reads files of a thousand records of a busy account, as gzip, and
// counts the records for each second of a processor's time, whatever else it does.
func BenchmarkReadAll(b *testing.B) {
	const perFile, count = 1000, 20
	var list []trail.File
	size := 0
	for f := range count {
		var plain bytes.Buffer
		plain.WriteString(`{"Records":[`)
		for i := range perFile {
			if i > 0 {
				plain.WriteByte(',')
			}
			plain.Write(cloudtrail.Busy(f*perFile + i).JSON())
		}
		plain.WriteString(`]}`)
		size += plain.Len()
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		z.Write(plain.Bytes())
		z.Close()
		list = append(list, trail.File{Name: fmt.Sprint(f), Open: func(context.Context) (io.ReadCloser, map[string]string, error) {
			return io.NopCloser(bytes.NewReader(packed.Bytes())), nil, nil
		}})
	}
	b.SetBytes(int64(size))
	before := processorTime(b)
	for b.Loop() {
		var p trail.Progress
		if _, err := trail.ReadAll(b.Context(), list, func(trail.Raw) {}, &p); err != nil || p.Records.Load() != perFile*count {
			b.Fatal(p.Records.Load(), err)
		}
	}
	b.ReportMetric(float64(perFile*count*b.N)/(processorTime(b)-before).Seconds(), "records/cpu-s")
}

// processorTime is what this process has had.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
