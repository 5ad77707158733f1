package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestVolumeOfConfiguration: a volume that is attached is found by its name alone, by
// recover and by list.
func TestVolumeOfConfiguration(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may set up a loop device")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	disk, pass := luksFile(ctx, t, "correct horse", "1000")
	output := func(name string, args ...string) string {
		out, err := exec.CommandContext(ctx, name, args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return strings.TrimSpace(string(out))
	}
	uuid := output("/usr/sbin/cryptsetup", "luksUUID", disk)
	loop := output("/usr/sbin/losetup", "--find", "--show", disk)
	t.Cleanup(func() { exec.Command("/usr/sbin/losetup", "--detach", loop).Run() })
	file := filepath.Join(t.TempDir(), "unlock.toml")
	if err := os.WriteFile(file, fmt.Appendf(nil, `[key]
source  = "header"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
[[volume]]
name   = "attached"
device = "UUID=%s"
`, uuid), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := output("unlockctl", "recover", "--test", "--config", file, "--volume", "attached", "--key-file", pass), loop+": the key opens it"; got != want {
		t.Errorf("recover prints %q, want %q", got, want)
	}
	if got, want := output("unlockctl", "list", "--config", file, "--name", loop), "attached"; got != want {
		t.Errorf("list --name prints %q, want %q", got, want)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, "unlockctl", "list", "--config", file, "--name", other).CombinedOutput(); err == nil || len(out) > 0 {
		t.Errorf("list --name of what is no volume: %v, %q, want a failure without words", err, out)
	}
	if got := output("unlockctl", "list", "--config", file, "--volume", "attached"); !strings.HasPrefix(got, "volume attached, key header\n"+loop+": LUKS2 "+uuid) {
		t.Errorf("list prints %q", got)
	}
}
