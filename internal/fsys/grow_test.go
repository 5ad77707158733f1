package fsys_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys"
)

// TestGrow: a mounted file system becomes as large as its device, with what is in it;
// who makes them looks it over afterwards. Not beside other tests: what one starts has the descriptors of all
// until it runs, and the device is busy.
func TestGrow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loop devices and mounting take root")
	}
	for fstype, check := range map[string][]string{
		"ext4": {"e2fsck", "-fn"}, "ext3": {"e2fsck", "-fn"}, "xfs": {"xfs_repair", "-n"}, "btrfs": {"btrfs", "check"},
	} {
		t.Run(fstype, func(t *testing.T) {
			if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); strings.HasPrefix(fstype, "ext") && (err != nil || has == 0) {
				t.Skip("the kernel grows ext4 for who has CAP_SYS_RESOURCE")
			}
			const before, after = 400 << 20, 800<<20 + 512<<10 // not a number of its blocks, or groups
			root := t.TempDir()
			l, err := fsys.Attach(root, "/f", before, true)
			if err != nil {
				t.Fatal(err)
			}
			if err := fsys.Make(t.Context(), l.Path, fstype); err != nil {
				t.Fatal(err)
			}
			if err := fsys.Mount(l.Path, root, "/mnt", fstype, ""); err != nil {
				t.Fatal(err)
			}
			mounted := filepath.Join(root, "mnt")
			t.Cleanup(func() { unix.Unmount(mounted, unix.MNT_DETACH) })
			if err := os.WriteFile(filepath.Join(mounted, "kept"), []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
			if grown, err := fsys.Grow(root, "/mnt", fstype, before); err != nil || grown {
				t.Errorf("Grow to the size that it has = %v, %v, want false", grown, err)
			}
			if err := os.Truncate(filepath.Join(root, "f"), after); err != nil {
				t.Fatal(err)
			}
			dev, err := os.Open(l.Path)
			if err != nil {
				t.Fatal(err)
			}
			err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0)
			dev.Close()
			if err != nil {
				t.Fatal(err)
			}
			if grown, err := fsys.Grow(root, "/mnt", fstype, after); err != nil || !grown {
				t.Errorf("Grow = %v, %v, want true", grown, err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(mounted, &st); err != nil {
				t.Fatal(err)
			}
			if size := int64(st.Blocks) * st.Bsize; size < after*9/10 || size > after {
				t.Errorf("it has %d bytes, want nearly %d", size, after)
			}
			if got, err := os.ReadFile(filepath.Join(mounted, "kept")); err != nil || string(got) != "kept" {
				t.Errorf("a file in it reads %q, %v", got, err)
			}
			if _, err := fsys.Grow(root, "/mnt", "tmpfs", after); !errors.Is(err, fsys.ErrCannotGrow) {
				t.Errorf("Grow of another type = %v, want ErrCannotGrow", err)
			}
			if err := unhurried(func() error { return unix.Unmount(mounted, 0) }); err != nil {
				t.Fatal(err)
			}
			if err := unhurried(func() error {
				out, err := exec.Command(check[0], append(check[1:], l.Path)...).CombinedOutput()
				if strings.Contains(string(out), "busy") {
					return unix.EBUSY
				}
				if err != nil {
					return fmt.Errorf("%w\n%s", err, out)
				}
				return nil
			}); err != nil {
				t.Errorf("%s: %v", check[0], err)
			}
			if err := l.Detach(); err != nil {
				t.Error(err)
			}
		})
	}
}

// unhurried tries again while another program of this machine looks at the device, as those
// do that look for file systems.
func unhurried(do func() error) (err error) {
	for range 50 {
		if err = do(); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}
