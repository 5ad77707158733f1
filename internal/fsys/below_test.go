package fsys_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys"
)

// readOnly returns a root file system of its own, mounted read-only.
func readOnly(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	root := t.TempDir()
	if err := unix.Mount("test", root, "tmpfs", unix.MS_NODEV|unix.MS_RELATIME, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	if err := os.MkdirAll(filepath.Join(root, "srv"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_RELATIME, ""); err != nil {
		t.Fatal(err)
	}
	return root
}

func flags(t *testing.T, root string) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		t.Fatal(err)
	}
	return st.Flags
}

func TestMountPointOnReadOnlyRoot(t *testing.T) {
	t.Parallel()
	root := readOnly(t)
	before := flags(t, root)
	if err := fsys.Cover(root, "/srv/new/secretfs"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(root, "srv/new/secretfs"), 0)
	if after := flags(t, root); after != before || after&unix.ST_RDONLY == 0 {
		t.Errorf("the root's mount flags are %#x, want %#x as before", after, before)
	}
	if err := os.WriteFile(filepath.Join(root, "srv/new/secretfs/in-the-clear"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing on the cover: %v, want EROFS", err)
	}
}

func TestFileOnReadOnlyRoot(t *testing.T) {
	t.Parallel()
	root := readOnly(t)
	l, err := fsys.Attach(root, "/srv/volumes/f", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.Path, []byte("written"), 0); err != nil {
		t.Error(err)
	}
	if err := l.Detach(); err != nil {
		t.Error(err)
	}
}

// TestDetached: a loop device that nobody uses is gone; one that is in use stays until
// it no longer is.
func TestDetached(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("loop devices take root")
	}
	root := t.TempDir()
	l, err := fsys.Attach(root, "/f", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	user, err := os.Open(l.Path)
	if err != nil {
		t.Fatal(err)
	}
	backing := func() bool {
		data, _ := os.ReadFile("/sys/block/" + filepath.Base(l.Path) + "/loop/backing_file")
		return strings.TrimSpace(string(data)) == filepath.Join(root, "f")
	}
	if err := l.Detach(); err != nil || !backing() {
		t.Errorf("Detach: %v; a device in use is still over its file: %v, want true", err, backing())
	}
	user.Close()
	for end := time.Now().Add(time.Minute); backing(); time.Sleep(time.Millisecond) { // a child of another test may have it until it execs
		if time.Now().After(end) {
			t.Fatal("nobody uses the device, and it is still over its file")
		}
	}
}

// TestAttachAgain: a file that has a loop device gets no second one, by which a volume in
// it would be another; one over a part of the file does not count.
func TestAttachAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loop devices take root")
	}
	root := t.TempDir()
	first, err := fsys.Attach(root, "/again", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fsys.Attach(root, "/again", 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	if again.Path != first.Path || again.Size != first.Size || again.Minor != first.Minor {
		t.Errorf("again: %+v, want %+v", again, first)
	}
	other, err := fsys.Attach(root, "/other", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	if other.Path == first.Path {
		t.Errorf("another file has the same device, %s", other.Path)
	}
	for _, l := range []fsys.Loop{first, again, other} {
		if err := l.Detach(); err != nil {
			t.Error(err)
		}
	}
	out, err := exec.Command("losetup", "--find", "--show", "--offset", "4096", filepath.Join(root, "again")).Output()
	if err != nil {
		t.Fatal(err)
	}
	part := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", part).Run()
	whole, err := fsys.Attach(root, "/again", 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	if whole.Path == part {
		t.Errorf("%s is over a part of the file, and was taken", part)
	}
	if err := whole.Detach(); err != nil {
		t.Error(err)
	}
}

// TestLabels: what the initramfs makes carries the label of the directory it lies in.
func TestLabels(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	const attribute, label = "security.selinux", "system_u:object_r:mnt_t:s0\x00"
	root := t.TempDir()
	if err := unix.Setxattr(root, attribute, []byte(label), 0); err != nil {
		t.Skip("the kernel keeps no labels here:", err)
	}
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", image).CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	l, err := fsys.Attach(filepath.Dir(image), "/image", 0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Detach()
	if err := fsys.Mount(l.Path, root, "/secretfs", "ext4", ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(root, "secretfs"), 0)
	file, err := fsys.Attach(root, "/volumes/f", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Detach()
	for _, name := range []string{"secretfs", "volumes", "volumes/f"} {
		got := make([]byte, 256)
		n, err := unix.Getxattr(filepath.Join(root, name), attribute, got)
		if err != nil || string(got[:n]) != label {
			t.Errorf("%s has the label %q, %v; want %q", name, got[:max(n, 0)], err, label)
		}
	}
	unix.Unmount(filepath.Join(root, "secretfs"), 0)
	if n, err := unix.Getxattr(filepath.Join(root, "secretfs"), attribute, make([]byte, 256)); err != nil || n != len(label) {
		t.Errorf("the mount point below has no label: %v", err)
	}
}
