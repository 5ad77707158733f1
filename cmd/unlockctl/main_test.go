package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInitramfs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	kernel := filepath.Dir(write("6.1/modules.dep", ""))
	write("6.1/modules.builtin", "kernel/dm-mod.ko\nkernel/dm-crypt.ko\nkernel/xts.ko\n")
	binary := write("unlock", "the binary")
	good := write("good.toml", `
[key]
source  = "header"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
[[volume]]
name   = "secretfs"
device = "instance-store"
`)
	bad := write("bad.toml", "colour = 1\n")
	image := filepath.Join(dir, "image")
	build := func(more ...string) []string {
		return append([]string{"initramfs", "--kernel", kernel, "--unlock", binary, "-o", image}, more...)
	}

	for _, test := range []struct {
		name   string
		args   []string
		status int
		stderr string // in what is printed
		magic  string // of the image; "": there is none
	}{
		{"zstd", build("--config", good), 0, "note: kernel 6.1 has no", "\x28\xb5\x2f\xfd"},
		{"plain", build("--config", good, "--compress", "none"), 0, "", "070701"},
		{"further file", build("--config", good, "--compress", "none", "--file", good+":/etc/x,y"), 0, "", "070701"},
		{"mistake", build("--config", bad), 2, "bad.toml:1: unknown setting", ""},
		{"no kernel", []string{"initramfs", "--kernel", "0.0-none", "--config", good, "--unlock", binary, "-o", image}, 1, "/lib/modules/0.0-none", ""},
		{"unknown compression", build("--config", good, "--compress", "rar"), 2, "--compress", ""},
		{"no output", []string{"initramfs", "--kernel", kernel}, 2, "--output", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := []byte("an image that boots")
			if err := os.WriteFile(image, old, 0o600); err != nil {
				t.Fatal(err)
			}
			var out, stderr bytes.Buffer
			if got := run(t.Context(), test.args, console{nil, &out, &stderr}); got != test.status {
				t.Errorf("exit status %d, want %d: %s", got, test.status, &stderr)
			}
			if !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("printed %q, want %q in it", &stderr, test.stderr)
			}
			got, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if test.magic == "" {
				if !bytes.Equal(got, old) {
					t.Error("the old image is gone, though the build failed")
				}
			} else if !strings.HasPrefix(string(got), test.magic) {
				t.Errorf("image begins with %q, want %q", got[:6], test.magic)
			}
		})
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".initramfs-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var out, stderr bytes.Buffer
	if got := run(t.Context(), []string{"version"}, console{nil, &out, &stderr}); got != 0 || out.String() != "unlockctl devel\n" {
		t.Errorf("status %d, printed %q and %q", got, &out, &stderr)
	}
}
