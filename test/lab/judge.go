package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"unlock/test/vm"
)

// judge decides whether a boot came to what it had to; before are the sums of the
// disks.
func (l *Lab) judge(b Boot, before string) error {
	for _, want := range b.Want {
		if want = l.expand.Replace(want); !l.Console.Contains(want) {
			return fmt.Errorf("the console does not show %q", want)
		}
	}
	switch {
	case l.Console.Contains(l.Secret()):
		return errors.New("the console shows the passphrase")
	case b.Cut != "" && !l.Console.Contains(b.Cut):
		return fmt.Errorf("the console does not show %q, at which power was to fail", b.Cut)
	case b.CutAt != nil && l.Console.Contains(scriptBegins):
		return errors.New("the system was started before power failed")
	case b.Cut != "", b.CutAt != nil:
	case b.Script != "" && !l.Console.Contains("script: exit 0"):
		return errors.New("the script in the running system did not succeed")
	case b.Script == "":
		if err := l.refused(before); err != nil {
			return err
		}
	}
	if err := l.onlyAWS(); err != nil {
		return err
	}
	for _, line := range l.Console {
		if strings.Contains(line.Text, scriptBegins) {
			l.Note("up in %.0f s", line.At.Seconds())
		}
	}
	if b.Check != nil {
		return b.Check(l)
	}
	return nil
}

// scriptBegins is on the console when the system is up.
const scriptBegins = "script: begin"

// refused checks that a boot stopped with a message and left the disks alone.
func (l *Lab) refused(before string) error {
	after, err := vm.Sums(l.Drives)
	switch {
	case err != nil:
		return err
	case after != before:
		return errors.New("a disk changed, though the boot was refused")
	case l.Console.Contains(scriptBegins), l.Console.Contains("login:"):
		return errors.New("the system was started, though the boot was refused")
	case l.Console.Contains("Kernel panic"):
		return errors.New("the kernel panicked")
	case !l.Console.Contains("hint: "):
		return errors.New("the console gives no hint")
	}
	return nil
}

// All applies several judgements.
func All(judges ...Judge) Judge {
	return func(l *Lab) error {
		var errs []error
		for _, j := range judges {
			errs = append(errs, j(l))
		}
		return errors.Join(errs...)
	}
}

// Formatted asks cryptsetup whether each disk holds LUKS2 with a token of ours, and
// looks for plaintext and passphrase among the raw bytes.
func Formatted(l *Lab) error {
	for _, image := range l.Images() {
		if err := Command(context.Background(), "", "cryptsetup", "isLuks", "--type", "luks2", image); err != nil {
			return err
		}
		dump, err := Output(context.Background(), nil, "", "cryptsetup", "luksDump", image)
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
		for _, plain := range []string{FileText, l.Secret()} {
			if bytes.Contains(raw, []byte(plain)) {
				return fmt.Errorf("%q lies on the disk in the clear", plain)
			}
		}
	}
	return nil
}

// Answered checks that a fault was met: that service gave an answer with that status.
func Answered(service string, status int) Judge {
	return func(l *Lab) error {
		n := 0
		for _, r := range l.Requests() {
			if r.Service == service && r.Status == status {
				n++
			}
		}
		if n == 0 {
			return fmt.Errorf("%s never answered %d", service, status)
		}
		l.Note("%s answered %d %d times", service, status, n)
		return nil
	}
}

// onlyAWS checks that the machine talked to nobody but DHCP, DNS, IMDS, and the
// services that give keys.
func (l *Lab) onlyAWS() error {
	allowed := []string{"localhost", "255.255.255.255", "169.254.169.254", "169.254.169.253", "172.31.0.1", "172.31.0.2", "192.0.2.10", "192.0.2.20", "192.0.2.30", "192.0.2.40",
		Bucket + ".s3.us-east-1.amazonaws.com", "kms.us-east-1.amazonaws.com", "ssm.us-east-1.amazonaws.com",
		"secretsmanager.us-east-1.amazonaws.com"}
	for _, host := range l.Cloud.Hosts() {
		if !slices.Contains(allowed, host) && !slices.Contains(l.Hosts, host) {
			return fmt.Errorf("the machine talked to %s", host)
		}
	}
	return nil
}

// NoFrames checks that the machine sent nothing at all.
func NoFrames(l *Lab) error {
	if n := l.Cloud.Frames(); n != 0 {
		return fmt.Errorf("the machine sent %d frames, want none", n)
	}
	l.Note("no frame sent")
	return nil
}

// NoRequest checks that a service was not asked.
func NoRequest(service string) Judge {
	return func(l *Lab) error {
		for _, r := range l.Requests() {
			if r.Service == service {
				return fmt.Errorf("%s was asked for %s, want nothing", service, r.Operation)
			}
		}
		return nil
	}
}

// OneDecrypt checks that the disks of one key cost one call of KMS.
func OneDecrypt(l *Lab) error {
	n := 0
	for _, r := range l.Requests() {
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

// PeakBelow holds the peak resident memory that unlock reports against a budget in bytes.
func PeakBelow(budget int) Judge {
	return func(l *Lab) error {
		for _, line := range l.Console {
			m := peakLine.FindStringSubmatch(line.Text)
			if m == nil {
				continue
			}
			n, err := strconv.Atoi(m[1])
			if err != nil || n <= 0 || n > budget {
				return fmt.Errorf("peak memory of unlock is %s bytes, want 1 to %d", m[1], budget)
			}
			l.Note("peak memory %.1f MB", float64(n)/1e6)
			return nil
		}
		return fmt.Errorf("the console shows no peak memory")
	}
}
