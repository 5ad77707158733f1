package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/internal/status"
	"unlock/test/vm"
)

// many opens 24 disks at once and, in the same boot but several seconds later,
// one more alone: its key comes from S3, which is slow and disturbed, theirs from the
// image. With a random passphrase the work on each disk is the processors' own, so
// that the time is measured by what they allow; with a typed one it is argon2id, once
// for them all.
var many = []scenario{
	manyDisks(scenario{name: "disks-24"}, 2, 3*manyCount/vm.CPUs, 2*manyCount/vm.CPUs),
	manyDisks(scenario{name: "disks-24-typed", typed: true}, 4, 2, 2),
}

// manyDisks completes s; s3 is how often S3 fails, 7 seconds each, and format and
// open are how many times as long as one disk all may take in the first boot and in
// the second.
func manyDisks(s scenario, s3 int, format, open float64) scenario {
	slowS3 := []string{"s3-slow:7s", fmt.Sprintf("s3-500:%d", s3)}
	against := func(limit float64) func(*lab) error {
		return func(l *lab) error { return manyAgainstOne(l, limit) }
	}
	s.timed = true
	s.disks = append(slices.Repeat([]string{"blank:24"}, manyCount), "blank:24:other")
	s.config = `
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
device     = "serial=` + otherSerial + `"
format     = "blank"
filesystem = "ext4"
[volume.key]
source  = "s3://` + bucket + "/" + otherObject + `"
kms_key = "$OTHER"
`
	s.machine = func(m *vm.Machine) { m.Timeout = 10 * time.Minute }
	s.boots = []boot{
		{faults: slowS3, script: writeEach + "crypt alone" + showStatus, check: both(formatted, both(oneDecryptEach, against(format)))},
		{faults: slowS3, script: readEach + "crypt alone" + showStatus, want: []string{"read 24 volumes"}, check: both(oneDecryptEach, against(open))},
	}
	return s
}

const manyCount = 24

// showStatus prints the status on one line.
const showStatus = "\necho \"status: $(tr -d '\\n' </run/unlock/status.json)\"\n"

// bootStatus returns what unlock left in the last boot.
func (l *lab) bootStatus() (*status.Boot, error) {
	for _, line := range l.console {
		if text, ok := strings.CutPrefix(line.Text, "status: "); ok {
			b := &status.Boot{}
			return b, json.Unmarshal([]byte(text), b)
		}
	}
	return nil, errors.New("the console shows no status")
}

// oneDecryptEach checks that KMS was asked once under each key.
func oneDecryptEach(l *lab) error {
	asked := map[string]int{}
	for _, r := range l.requests() {
		if r.Service == "kms" {
			asked[r.Resource]++
		}
	}
	for _, key := range []string{l.expand.Replace("$KEY"), l.expand.Replace("$OTHER")} {
		if asked[key] != 1 || len(asked) != 2 {
			return fmt.Errorf("KMS was asked %v, want once under each of two keys", asked)
		}
	}
	return nil
}

// manyAgainstOne notes and judges how long 24 disks and one disk took from key to
// mapping.
func manyAgainstOne(l *lab, limit float64) error {
	b, err := l.bootStatus()
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
	l.note("key to mapped: 24 disks %.3f s, 1 disk %.3f s, factor %.1f", all.Seconds(), one.Seconds(), factor)
	if factor > limit {
		return fmt.Errorf("%d disks take %v from key to mapping, one %v: more than %.0f times as long", manyCount, all, one, limit)
	}
	return nil
}
