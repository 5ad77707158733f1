package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"unlock/internal/status"
)

// many opens 24 disks at once and, in the same boot but several seconds later,
// one more alone: its key comes from S3, which is slow and disturbed, theirs from the
// image.
var many = []scenario{{
	name: "disks-24", disks: append(slices.Repeat([]string{"blank:24"}, 24), "blank:24:other"),
	config: `
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
`,
	boots: []boot{
		{faults: slowS3, script: writeEach + "crypt alone" + showStatus, check: both(formatted, both(oneDecryptEach, manyAgainstOne))},
		{faults: slowS3, script: readEach + "crypt alone" + showStatus, want: []string{"read 24 volumes"}, check: both(oneDecryptEach, manyAgainstOne)},
	},
}}

// slowS3 takes more than 20 seconds to give an object.
var slowS3 = []string{"s3-slow:7s", "s3-500:2"}

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

// manyAgainstOne notes how long 24 disks and one disk took from key to mapping.
func manyAgainstOne(l *lab) error {
	b, err := l.bootStatus()
	if err != nil {
		return err
	}
	keyAt := map[bool]time.Duration{} // of the one
	mapped := map[bool]time.Duration{}
	work := map[string]time.Duration{}
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
			if one {
				work[s.Name] = time.Duration(s.Duration)
			}
		}
	}
	if keyAt[true] < mapped[false] {
		return errors.New("the single disk was not opened alone")
	}
	all, one := mapped[false]-keyAt[false], mapped[true]-keyAt[true]
	l.note("key to mapped: 24 disks %.3f s, 1 disk %.3f s, factor %.1f %v", all.Seconds(), one.Seconds(), all.Seconds()/one.Seconds(), work)
	return nil
}
