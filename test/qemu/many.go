package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/test/lab"
)

// many opens 24 disks at once and, in the same boot but several seconds later,
// one more alone: its key comes from S3, which is slow and disturbed, theirs from the
// image. KMS is asked once under each key. How many times as long as one disk all take
// is noted; what it may be, BenchmarkMany of package luks2 judges, on processors that
// are not emulated.
var many = []lab.Scenario{
	manyDisks(lab.Scenario{Name: "disks-24"}),
	manyDisks(lab.Scenario{Name: "disks-24-typed", Typed: true}),
}

// manyDisks completes s.
func manyDisks(s lab.Scenario) lab.Scenario {
	slowS3 := []string{"s3-slow:7s", "s3-500:2"}
	s.Disks = append(slices.Repeat([]string{"blank:24"}, manyCount), "blank:24:other")
	s.Config = `
[aws]
ca_bundle = "/etc/unlock/test-ca.pem"
[[volume]]
name       = "secretfs"
device     = "instance-store"
count      = 24
layout     = "separate"
format     = "blank"
filesystem = "ext4"
[volume.key]
source  = "file:/etc/unlock/key.bin"
kms_key = "$KEY"
[volume.key.context]
purpose = "secretfs"
[[volume]]
name       = "alone"
device     = "serial=` + lab.OtherSerial + `"
format     = "blank"
filesystem = "ext4"
[volume.key]
source  = "s3://` + lab.Bucket + "/" + lab.OtherObject + `"
kms_key = "$OTHER"
`
	judge := []lab.Judge{oneDecryptEach, manyAgainstOne}
	if !s.Typed { // argon2id's memory is what cryptsetup's default has it be
		judge = append(judge, lab.PeakBelow(60e6))
	}
	s.Boots = []lab.Boot{
		{Faults: slowS3, Script: "write_each\ncrypt alone\nshow_status", Check: lab.All(append(judge, lab.Formatted)...)},
		{Faults: slowS3, Script: "read_each\ncrypt alone\nshow_status", Want: []string{"read 24 volumes"}, Check: lab.All(judge...)},
	}
	return s
}

const manyCount = 24

// oneDecryptEach checks that KMS was asked once under each key.
func oneDecryptEach(l *lab.Lab) error {
	asked := map[string]int{}
	for _, r := range l.Requests() {
		if r.Service == "kms" {
			asked[r.Resource]++
		}
	}
	for _, key := range []string{l.Expand("$KEY"), l.Expand("$OTHER")} {
		if asked[key] != 1 || len(asked) != 2 {
			return fmt.Errorf("KMS was asked %v, want once under each of two keys", asked)
		}
	}
	return nil
}

// manyAgainstOne notes how long 24 disks and one disk took from key to mapping, if the
// one was opened alone.
func manyAgainstOne(l *lab.Lab) error {
	b, err := l.BootStatus()
	if err != nil {
		return err
	}
	keyAt := map[bool]time.Duration{} // of the one
	mapped := map[bool]time.Duration{}
	alone := ""
	for _, v := range b.Volumes {
		if v.Name == "alone" {
			alone = strings.TrimPrefix(v.Devices[0], "/dev/")
		}
	}
	for _, s := range b.Steps {
		end := time.Duration(s.Start + s.Duration)
		switch s.Name {
		case "key":
			keyAt[strings.HasPrefix(s.Subject, "s3:")] = end
		case "format", "open":
			one := s.Subject == alone
			mapped[one] = max(mapped[one], end)
		}
	}
	if keyAt[true] < mapped[false] {
		l.Note("the one disk was not opened alone")
		return nil
	}
	all, one := mapped[false]-keyAt[false], mapped[true]-keyAt[true]
	l.Note("key to mapped: 24 disks %.3f s, 1 disk %.3f s, factor %.1f", all.Seconds(), one.Seconds(), all.Seconds()/one.Seconds())
	return nil
}
