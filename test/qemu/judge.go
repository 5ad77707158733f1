package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
)

// judge is a further judgement of a boot that ended.
type judge func(*lab) error

// both applies two judgements.
func both(a, b judge) judge {
	return func(l *lab) error { return errors.Join(a(l), b(l)) }
}

// formatted asks cryptsetup whether each disk holds LUKS2 with a token of ours, and
// looks for plaintext and passphrase among the raw bytes.
func formatted(l *lab) error {
	for _, image := range l.images() {
		if err := tool(context.Background(), "", "cryptsetup", "isLuks", "--type", "luks2", image); err != nil {
			return err
		}
		dump, err := output(context.Background(), nil, "", "cryptsetup", "luksDump", image)
		if err != nil {
			return err
		}
		if !bytes.Contains(dump, []byte("unlock-set")) {
			return errors.New("cryptsetup luksDump shows no token of ours")
		}
		raw, err := os.ReadFile(image)
		if err != nil {
			return err
		}
		for _, plain := range []string{fileText, passphrase} {
			if bytes.Contains(raw, []byte(plain)) {
				return fmt.Errorf("%q lies on the disk in the clear", plain)
			}
		}
	}
	return nil
}

// answered checks that a fault was met: that service gave an answer with that status.
func answered(service string, status int) judge {
	return func(l *lab) error {
		n := 0
		for _, r := range l.requests() {
			if r.Service == service && r.Status == status {
				n++
			}
		}
		if n == 0 {
			return fmt.Errorf("%s never answered %d", service, status)
		}
		l.note("%s answered %d %d times", service, status, n)
		return nil
	}
}

// onlyAWS checks that the machine talked to nobody but DHCP, DNS, IMDS, and the
// three services that give keys.
func onlyAWS(l *lab) error {
	allowed := []string{"localhost", "255.255.255.255", "169.254.169.254", "169.254.169.253", "172.31.0.1", "172.31.0.2", "192.0.2.10", "192.0.2.20", "192.0.2.30",
		bucket + ".s3.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com", "ssm.us-east-1.amazonaws.com"}
	for _, host := range l.cloud.Hosts() {
		if !slices.Contains(allowed, host) && !slices.Contains(l.hosts, host) {
			return fmt.Errorf("the machine talked to %s", host)
		}
	}
	return nil
}

// noFrames checks that the machine sent nothing at all.
func noFrames(l *lab) error {
	if n := l.cloud.Frames(); n != 0 {
		return fmt.Errorf("the machine sent %d frames, want none", n)
	}
	l.note("no frame sent")
	return nil
}

// noRequest checks that a service was not asked.
func noRequest(service string) judge {
	return func(l *lab) error {
		for _, r := range l.requests() {
			if r.Service == service {
				return fmt.Errorf("%s was asked for %s, want nothing", service, r.Operation)
			}
		}
		return nil
	}
}

// oneDecrypt checks that the disks of one key cost one call of KMS.
func oneDecrypt(l *lab) error {
	n := 0
	for _, r := range l.requests() {
		if r.Service == "kms" && r.Operation == "Decrypt" {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("KMS was asked to decrypt %d times, want 1", n)
	}
	return nil
}

var peakLine = regexp.MustCompile(`"peak_rss_bytes": (\d+)`)

// peakBelow holds the peak resident memory that unlock reports against a budget in bytes.
func peakBelow(budget int) judge {
	return func(l *lab) error {
		for _, line := range l.console {
			m := peakLine.FindStringSubmatch(line.Text)
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(m[1])
			if err != nil || n <= 0 || n > budget {
				return fmt.Errorf("peak memory of unlock is %s bytes, want 1 to %d", m[1], budget)
			}
			l.note("peak memory %.1f MB", float64(n)/1e6)
			return nil
		}
		return fmt.Errorf("the console shows no peak memory")
	}
}
