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
			plain.Write(busy(f*perFile + i))
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

// busy is a call that somebody else makes.
func busy(i int) []byte {
	at := time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC)
	e := cloudtrail.Event{
		Time: at, Service: "s3", Name: "GetObject", Region: "us-east-1", Address: fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255), Agent: "[aws-sdk-go-v2/1.47.7 os/linux lang/go#1.26 md/GOOS#linux md/GOARCH#amd64 api/s3#1.114.8]",
		Identity: cloudtrail.Identity{ARN: fmt.Sprintf("arn:aws:sts::111122223333:assumed-role/web/i-%017x", i*7919), AccessKey: fmt.Sprintf("ASIA%016X", i*104729), Created: at.Add(-time.Hour), Delivery: "2.0"},
		Request:  map[string]any{"bucketName": "a-busy-bucket", "Host": "a-busy-bucket.s3.us-east-1.amazonaws.com", "key": fmt.Sprintf("data/part-%06d", i)},
		Additional: map[string]any{"SignatureVersion": "SigV4", "CipherSuite": "TLS_AES_128_GCM_SHA256", "bytesTransferredIn": 0, "AuthenticationMethod": "AuthHeader",
			"x-amz-id-2": fmt.Sprintf("%064x", i*15485863), "bytesTransferredOut": i},
		RequestID: fmt.Sprintf("%016X", i*32452843), EventID: fmt.Sprintf("%08x-0000-4000-8000-%012x", i, i), ReadOnly: true, Data: true,
		Resources: []cloudtrail.Resource{{Type: "AWS::S3::Object", ARN: fmt.Sprintf("arn:aws:s3:::a-busy-bucket/data/part-%06d", i)}, {Account: "111122223333", Type: "AWS::S3::Bucket", ARN: "arn:aws:s3:::a-busy-bucket"}},
		Account:   "111122223333",
	}
	return e.JSON()
}
