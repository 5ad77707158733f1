package initd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/test/program"
)

// ext4 makes an image with that label and UUID.
func ext4(t *testing.T, label, uuid string) block.Disk {
	t.Helper()
	program.Need(t, "mke2fs")
	image := filepath.Join(t.TempDir(), "image")
	out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-L", label, "-U", uuid, image, "4M").CombinedOutput()
	if err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	return block.Disk{Name: label, Path: image, Size: 4 << 20}
}

func TestRootDevice(t *testing.T) {
	t.Parallel()
	const uuid = "0a1b2c3d-0000-4000-8000-00000000000f"
	data := ext4(t, "data", "11111111-0000-4000-8000-000000000001")
	root := ext4(t, "root", uuid)
	root.PartUUID = "2f7a1c9e-01"
	late := block.Disk{Name: "late", Path: filepath.Join(t.TempDir(), "absent"), Size: 4 << 20}
	disks := []block.Disk{late, data, root}
	for _, test := range []struct{ spec, want string }{
		{"LABEL=root", root.Path},
		{"LABEL=ROOT", ""},
		{"UUID=" + uuid, root.Path},
		{"UUID=" + strings.ToUpper(uuid), root.Path},
		{"PARTUUID=2F7A1C9E-01", root.Path},
		{"/dev/disk/by-uuid/" + uuid, root.Path},
		{"/dev/disk/by-label/root", root.Path},
		{"/dev/disk/by-partuuid/2f7a1c9e-01", root.Path},
		{"/dev/null", ""}, // a device, but none for blocks
		{"/dev/does-not-exist", ""},
	} {
		t.Run(test.spec, func(t *testing.T) {
			match, err := parseRoot(test.spec)
			if err != nil {
				t.Fatal(err)
			}
			if got := match(disks); got != test.want {
				t.Errorf("found %q, want %q", got, test.want)
			}
			if got := match(nil); got != "" {
				t.Errorf("without disks found %q", got)
			}
		})
	}
}

func TestMountRootRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ cmdline, want string }{
		{"ro quiet", "no root="},
		{"root=nfs:server", "root=nfs:server is not understood"},
		{"root=UUID=", "root=UUID= is not understood"},
	} {
		if err := MountRoot(t.Context(), &block.Finder{}, test.cmdline); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("MountRoot(%q) = %v, want %q in it", test.cmdline, err, test.want)
		}
	}
}

func TestLoadListGoesOn(t *testing.T) {
	t.Parallel()
	if err := loadList(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("without a list: %v", err)
	}
	list := filepath.Join(t.TempDir(), "modules")
	if err := os.WriteFile(list, []byte("/nowhere/a.ko\n/nowhere/b.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := loadList(list)
	if err == nil || !strings.Contains(err.Error(), "a.ko") || !strings.Contains(err.Error(), "b.ko") {
		t.Errorf("loadList = %v, want both modules named", err)
	}
}

func TestDeleteBelow(t *testing.T) {
	t.Parallel()
	fill := func() (dir, outside string, dev uint64) {
		dir, outside = t.TempDir(), filepath.Join(t.TempDir(), "kept")
		for _, f := range []string{outside, filepath.Join(dir, "a/b/file"), filepath.Join(dir, "file")} {
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(f, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range []string{outside, filepath.Dir(outside)} {
			if err := os.Symlink(l, filepath.Join(dir, "link-"+filepath.Base(l))); err != nil {
				t.Fatal(err)
			}
		}
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			t.Fatal(err)
		}
		return dir, outside, st.Dev
	}
	open := func(dir string) *os.File {
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}

	dir, outside, dev := fill()
	deleteBelow(open(dir), dev)
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d entries are left", len(left))
	}
	if _, err := os.Stat(outside); err != nil {
		t.Errorf("what a link points to: %v", err)
	}

	dir, _, dev = fill()
	deleteBelow(open(dir), dev+1)
	if _, err := os.Stat(filepath.Join(dir, "a/b/file")); err != nil {
		t.Errorf("a file below a directory of another file system: %v", err)
	}
}
