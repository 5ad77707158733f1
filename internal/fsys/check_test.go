package fsys_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys"
	"unlock/internal/hint"
)

// TestCheck: file systems as power cuts and broken disks leave them; e2fsck and the kernel
// are the judges of what is mended.
func TestCheck(t *testing.T) {
	debugfs := func(command ...string) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			for _, c := range command {
				if out, err := exec.Command("debugfs", "-w", "-R", c, file).CombinedOutput(); err != nil {
					t.Fatalf("debugfs: %v: %s", err, out)
				}
			}
		}
	}
	broken := debugfs("set_super_value state 2", "clri <2>")
	for _, row := range []struct {
		name, fstype string
		before       func(*testing.T, string)
		how          fsys.Checking
		want         string // how the result begins
		err          error
		sound        bool // afterwards
	}{
		{name: "clean", fstype: "ext4", want: fsys.Clean, sound: true},
		{name: "clean, forced", fstype: "ext3", how: fsys.Checking{Force: true}, want: fsys.Clean, sound: true},
		{name: "power was cut", fstype: "ext4", before: cutOff, want: fsys.Recovered, sound: true},
		{name: "power was cut", fstype: "ext3", before: cutOff, want: fsys.Recovered, sound: true},
		{name: "wrong counts", fstype: "ext4", before: debugfs("set_super_value state 2", "set_inode_field lost+found links_count 7"), want: fsys.Repaired, sound: true},
		{name: "no root", fstype: "ext4", before: broken, err: fsys.ErrDamaged},
		{name: "no root, to be repaired", fstype: "ext4", before: broken, how: fsys.Checking{Repair: "yes"}, want: fsys.Repaired, sound: true},
		{name: "wrong counts, not to be repaired", fstype: "ext4", before: debugfs("set_super_value state 2", "set_inode_field lost+found links_count 7"),
			how: fsys.Checking{Repair: "no"}, err: fsys.ErrDamaged},
		{name: "skipped", fstype: "ext4", before: broken, how: fsys.Checking{Skip: true}, want: fsys.NotChecked + ": fsck.mode=skip"},
		{name: "no superblock", fstype: "ext4", before: func(t *testing.T, file string) {
			if err := errors.Join(os.Truncate(file, 0), os.Truncate(file, 64<<20)); err != nil {
				t.Fatal(err)
			}
		}, want: fsys.NotChecked + ": exit status 8: "},
		{name: "not ours to check", fstype: "xfs", want: "", sound: true},
	} {
		t.Run(row.fstype+" "+row.name, func(t *testing.T) {
			file := image(t, row.fstype, sized[row.fstype])
			if row.before != nil {
				row.before(t, file)
			}
			alive := 0
			row.how.Alive = func() { alive++ }
			got, err := fsys.Check(t.Context(), file, row.fstype, row.how)
			if !errors.Is(err, row.err) || !strings.HasPrefix(got, row.want) || row.want == "" && got != "" {
				t.Fatalf("Check = %q, %v, want %q, %v", got, err, row.want, row.err)
			}
			if err != nil && !strings.Contains(hint.Of(err), "fsck.repair=yes") {
				t.Errorf("the hint is %q", hint.Of(err))
			}
			if row.how.Force && alive == 0 {
				t.Error("it did not say that it went on")
			}
			if fsys.Checker(row.fstype) == "" {
				return
			}
			if err := exec.Command("e2fsck", "-fn", file).Run(); (err == nil) != row.sound {
				t.Errorf("e2fsck -fn afterwards: %v, want sound: %v", err, row.sound)
			}
		})
	}
}

// cutOff leaves an image as a power cut leaves a disk, with a file in the journal only.
func cutOff(t *testing.T, file string) {
	root := t.TempDir()
	if err := fsys.Mount(looped(t, file), root, "/mnt", "ext4", "data=journal"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "mnt")
	for _, name := range []string{"a", "b", "c"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("written"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	now, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, now, 0o600); err != nil {
		t.Fatal(err)
	}
}
