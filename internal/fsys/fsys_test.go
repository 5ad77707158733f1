package fsys

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys/fsopt"
	"unlock/test/program"
)

func TestMake(t *testing.T) {
	for _, fstype := range []string{"ext4", "ext3", "xfs", "btrfs", "swap"} {
		t.Run(fstype, func(t *testing.T) {
			program.Need(t, fsopt.Tool(fstype))
			image := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(image, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(image, 512<<20); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time over the first
				if err := Make(t.Context(), image, fstype); err != nil {
					t.Fatal(err)
				}
			}
			program.Need(t, "blkid")
			out, err := exec.Command("blkid", "-p", "-o", "value", "-s", "TYPE", image).Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != fstype {
				t.Errorf("blkid = %q, %v, want %q", got, err, fstype)
			}
		})
	}
}

func TestMakeFails(t *testing.T) {
	program.Need(t, "mke2fs")
	small := filepath.Join(t.TempDir(), "small")
	if err := os.WriteFile(small, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for fstype, want := range map[string]string{"ext4": "mke2fs: exit status", "ntfs": "unknown type"} {
		if err := Make(t.Context(), small, fstype); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Make(%s) = %v, want %q", fstype, err, want)
		}
	}
}

func TestOpenDir(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "srv/data"), 0o755); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"mnt": "/srv/data", "up": "../../..", "loop": "/loop"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{
		"/srv/data":       "srv/data",
		"/srv/new/deeper": "srv/new/deeper",
		"/mnt/secretfs":   "srv/data/secretfs", // absolute links count from the root
		"/up/etc":         "etc",               // and nothing leads out of it
	} {
		fd, err := openDir(root, dir, true)
		if err != nil {
			t.Errorf("openDir(%s): %v", dir, err)
			continue
		}
		var got, expected unix.Stat_t
		if unix.Fstat(fd, &got) != nil || unix.Stat(filepath.Join(root, want), &expected) != nil || got.Ino != expected.Ino {
			t.Errorf("openDir(%s) is not %s", dir, want)
		}
		unix.Close(fd)
	}
	if _, err := openDir(root, "/loop/x", true); err == nil {
		t.Error("openDir followed a link to itself")
	}
}
