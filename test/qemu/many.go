package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/test/lab"
	"unlock/test/vm"
)

// many opens 24 disks at once and, in the same boot but several seconds later,
// one more alone: its key comes from S3, which is slow and disturbed, theirs from the
// image. With a random passphrase the work on each disk is the processors' own, so
// that the time is measured by what they allow; with a typed one it is argon2id, once
// for them all.
var many = []lab.Scenario{
	manyDisks(lab.Scenario{Name: "disks-24"}, 4, 3*manyCount/vm.CPUs, 2*manyCount/vm.CPUs),
	manyDisks(lab.Scenario{Name: "disks-24-typed", Typed: true}, 4, 2, 2),
}

// manyDisks completes s; s3 is how often S3 fails, 7 seconds each, and format and
// open are how many times as long as one disk all may take in the first boot and in
// the second.
func manyDisks(s lab.Scenario, s3 int, format, open float64) lab.Scenario {
	slowS3 := []string{"s3-slow:7s", fmt.Sprintf("s3-500:%d", s3)}
	against := func(limit float64) lab.Judge {
		return func(l *lab.Lab) error { return manyAgainstOne(l, limit) }
	}
	s.Timed = true
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
	s.Machine = func(_ *lab.Lab, m *vm.Machine) { m.Timeout = 10 * time.Minute }
	s.Boots = []lab.Boot{
		{Faults: slowS3, Script: "write_each\ncrypt alone\nshow_status", Check: lab.All(lab.Formatted, oneDecryptEach, against(format))},
		{Faults: slowS3, Script: "read_each\ncrypt alone\nshow_status", Want: []string{"read 24 volumes"}, Check: lab.All(oneDecryptEach, against(open))},
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

// manyAgainstOne notes and judges how long 24 disks and one disk took from key to
// mapping.
func manyAgainstOne(l *lab.Lab, limit float64) error {
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
		return errors.New("the single disk was not opened alone")
	}
	all, one := mapped[false]-keyAt[false], mapped[true]-keyAt[true]
	factor := all.Seconds() / one.Seconds()
	l.Note("key to mapped: 24 disks %.3f s, 1 disk %.3f s, factor %.1f", all.Seconds(), one.Seconds(), factor)
	if factor > limit {
		return fmt.Errorf("%d disks take %v from key to mapping, one %v: more than %.0f times as long", manyCount, all, one, limit)
	}
	return nil
}
