package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// both applies two judgements.
func both(a, b func(*lab) error) func(*lab) error {
	return func(l *lab) error {
		if err := a(l); err != nil {
			return err
		}
		return b(l)
	}
}

// formatted asks cryptsetup whether the first n disks now hold LUKS2 with our token.
func formatted(n int) func(*lab) error {
	return func(l *lab) error {
		for _, image := range l.images[:n] {
			if err := tool(context.Background(), "", "cryptsetup", "isLuks", "--type", "luks2", image); err != nil {
				return err
			}
			if err := tool(context.Background(), "", "cryptsetup", "luksDump", image); err != nil {
				return err
			}
		}
		return nil
	}
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
func noRequest(service string) func(*lab) error {
	return func(l *lab) error {
		for _, r := range l.cloud.Requests() {
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
	for _, r := range l.cloud.Requests() {
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
func peakBelow(budget int) func(*lab) error {
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
