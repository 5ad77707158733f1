package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/test/ec2sim"
)

// metadata serves the IMDS of an instance of its own on the loopback interface.
func metadata(t *testing.T, c *ec2sim.Cloud) (url string) {
	t.Helper()
	guest, err := c.Guest()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				far, err := guest.DialContext(context.Background(), "tcp", "169.254.169.254:80")
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					io.Copy(far, near)
					far.Close()
				}()
				io.Copy(near, far)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// attached is a volume of the configuration, on a loop device, whose key is a data key of
// KMS's in its header, and whose role IMDS knows.
type attached struct {
	*rotation
	loop string
}

func newAttached(t *testing.T) attached {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may set up a loop device")
	}
	a := attached{rotation: newRotation(t, "")}
	a.loop = strings.TrimSpace(string(a.must(t, nil, "losetup", "--find", "--show", "disk")))
	t.Cleanup(func() { exec.Command("/usr/sbin/losetup", "--detach", a.loop).Run() })
	uuid := strings.TrimSpace(string(a.must(t, nil, "cryptsetup", "luksUUID", "disk")))
	var kms string
	for _, e := range a.env {
		if url, ok := strings.CutPrefix(e, "AWS_ENDPOINT_URL="); ok {
			kms = url
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "unlock.toml"), fmt.Appendf(nil, `[aws]
ca_bundle = "%s/ca.pem"
endpoint  = { kms = %q, imds = %q }
[key]
source  = "header"
kms_key = %q
[[volume]]
name   = "unlock-test-%s"
device = "UUID=%s"
`, a.dir, kms, metadata(t, a.cloud), a.key, uuid[:8], uuid), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a attached) name(t *testing.T) string {
	return "unlock-test-" + strings.TrimSpace(string(a.must(t, nil, "cryptsetup", "luksUUID", "disk")))[:8]
}

// TestMemoryOpen: the key by which a volume was opened is not left behind, whatever became
// of the mapping. Where the kernel has no device-mapper, nothing does.
func TestMemoryOpen(t *testing.T) {
	t.Parallel()
	a := newAttached(t)
	name := a.name(t)
	cmd := a.command(t, nil, []string{"dump-memory", "memory", "unlockctl", "open", "--config", "unlock.toml", name})
	out, err := cmd.Output()
	var ended *exec.ExitError
	if _, missing := os.Stat("/sys/class/misc/device-mapper"); missing != nil {
		if !errors.As(err, &ended) || !strings.Contains(a.printed.String(), "device-mapper") {
			t.Fatalf("without device-mapper: %v, %s%s", err, out, &a.printed)
		}
	} else {
		defer a.must(t, nil, "unlockctl", "close", "--config", "unlock.toml", name)
		if err != nil {
			t.Fatalf("%v: %s%s", err, out, &a.printed)
		}
	}
	if !strings.Contains(string(out)+a.printed.String(), "KMS Decrypt") {
		t.Fatalf("KMS was not asked: %s%s", out, &a.printed)
	}
	memory, err := os.ReadFile(filepath.Join(a.dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	key := a.published(t)
	roles, _ := a.cloud.Issued()
	if len(roles) == 0 || len(key) == 0 {
		t.Fatal("nothing to look for")
	}
	for what, secret := range map[string]string{"passphrase": string(key), "role's secret key": roles[0].SecretKey, "role's token": roles[0].Token} {
		if n := copies(memory, []byte(secret)); n > 0 {
			t.Errorf("%d copies of the %s", n, what)
		}
	}
}
