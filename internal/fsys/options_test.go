package fsys_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/fsys"
	"unlock/internal/fsys/fsopt"
)

// sized are the types and how many MiB an image of theirs takes.
var sized = map[string]int64{"ext4": 64, "ext3": 64, "xfs": 310, "btrfs": 128}

// image makes an image of a file system.
func image(t *testing.T, fstype string, mib int64, arguments ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting takes root")
	}
	file := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := fsys.Make(t.Context(), file, fstype, arguments...); err != nil {
		t.Fatal(err)
	}
	return file
}

// hasQuota reports whether this kernel's XFS has quotas, as that of distributions has.
func hasQuota() bool {
	_, err := os.Stat("/proc/fs/xfs/xqmstat")
	return err == nil
}

// looped puts a loop device over an image.
func looped(t *testing.T, file string) string {
	t.Helper()
	l, err := fsys.Attach(filepath.Dir(file), "/"+filepath.Base(file), 0, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Detach() })
	return l.Path
}

// superblock returns what mountinfo has of a mount: its own options, and those of its file
// system.
func superblock(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); f[4] == dir {
			return f[5] + " " + f[len(f)-1]
		}
	}
	t.Fatalf("nothing is mounted on %s", dir)
	return ""
}

// TestMountOptionsAsMount: whatever passes CheckMount means what it means to mount(8).
func TestMountOptionsAsMount(t *testing.T) {
	for _, row := range []struct{ fstype, options string }{
		{"ext4", ""},
		{"ext4", "defaults"},
		{"ext4", "defaults,nofail,_netdev,auto,nouser,comment=cache,x-gvfs-hide,X-mount.mkdir"},
		{"ext4", "noatime,nodev,nosuid,noexec"},
		{"ext4", "noatime,atime,nodev,dev,ro,rw"},
		{"ext4", "ro"},
		{"ext4", "strictatime,lazytime,sync,dirsync"},
		{"ext4", "relatime,nodiratime,nosymfollow,loud,silent"},
		{"ext4", "data=writeback,commit=30,errors=remount-ro,discard,nobarrier"},
		{"ext4", "data=journal,nodelalloc"},
		{"ext3", "noatime,data=journal,commit=15"},
		{"xfs", "noatime,logbsize=256k,logbufs=8,allocsize=64m,largeio,inode64"},
		{"xfs", "nouuid,wsync,swalloc,lazytime"},
		{"btrfs", "compress=zstd:3,noatime,ssd,discard=async,nodatacow"},
		{"btrfs", "user_subvol_rm_allowed,commit=60,max_inline=2k,subvol=/"},
	} {
		t.Run(row.fstype+" "+row.options, func(t *testing.T) {
			if err := fsopt.CheckMount(row.options, fsopt.Use{Type: row.fstype, MayFail: true}); err != nil {
				t.Fatal(err)
			}
			device, root := looped(t, image(t, row.fstype, sized[row.fstype])), t.TempDir()
			dir := filepath.Join(root, "mnt")
			if err := fsys.Mount(device, root, "/mnt", row.fstype, row.options); err != nil {
				t.Fatal(err)
			}
			got := superblock(t, dir)
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", row.fstype, "-o", row.options, device, dir).CombinedOutput(); err != nil {
				t.Fatalf("mount: %v: %s", err, out)
			}
			want := superblock(t, dir)
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("mounted with %s, by mount(8) with %s", got, want)
			}
		})
	}
}

// TestEveryMountOption: the kernel takes each that passes CheckMount.
func TestEveryMountOption(t *testing.T) {
	values := map[string]string{
		"commit": "30", "data": "ordered", "errors": "continue", "barrier": "1", "init_itable": "5", "journal_ioprio": "3",
		"inode_readahead_blks": "64", "max_dir_size_kb": "64", "stripe": "64", "resuid": "1", "resgid": "1", "auto_da_alloc": "1",
		"max_batch_time": "100", "min_batch_time": "10", "allocsize": "1m", "logbufs": "8", "logbsize": "64k", "compress": "lzo",
		"compress-force": "zlib:4", "discard": "sync", "fatal_errors": "bug", "max_inline": "2k", "metadata_ratio": "4", "space_cache": "v2",
		"subvol": "/", "subvolid": "5", "thread_pool": "2",
	}
	for _, fstype := range fsopt.MountTypes {
		t.Run(fstype, func(t *testing.T) {
			device := looped(t, image(t, fstype, sized[fstype]))
			root := t.TempDir()
			names := fsopt.Names(fstype)
			if len(names) < 20 {
				t.Fatalf("%s has the options %q", fstype, names)
			}
			for _, o := range names {
				if bare, ok := strings.CutSuffix(o, "="); ok {
					o += values[bare]
				}
				if o == "prjquota" && fstype == "ext4" { // on what is made for it: see the scenarios
					continue
				}
				if fstype == "xfs" && !hasQuota() && o != "noquota" && (strings.Contains(o, "quota") || strings.Contains(o, "qno")) {
					t.Logf("%s: this kernel's XFS has no quotas", o)
					continue
				}
				if err := fsopt.CheckMount(o, fsopt.Use{Type: fstype}); err != nil {
					t.Errorf("%s: %v", o, err)
				}
				if err := fsys.Mount(device, root, "/mnt", fstype, o); err != nil {
					t.Errorf("%s: %v", o, err)
					continue
				}
				if err := unix.Unmount(filepath.Join(root, "mnt"), 0); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMakeWithOptions: what passes Making makes a file system that is as it says, by the
// word of those who look into it, and can be mounted.
func TestMakeWithOptions(t *testing.T) {
	for _, row := range []struct {
		fstype, options string
		stripe          fsopt.Stripe
		mount           string // options; "no": it is not mounted, or not by every kernel
		want            []string
	}{
		{fstype: "ext4", options: "-m 0 -L data -i 65536 -T largefile -b 4096", want: []string{"Filesystem volume name:   data", "Reserved block count:     0"}},
		{fstype: "ext4", options: "-E lazy_itable_init=0,lazy_journal_init,stride=16,stripe_width=32,packed_meta_blocks=1", want: []string{"RAID stripe width:        32"}},
		{fstype: "ext4", options: "-O ^has_journal,^dir_index,^metadata_csum", want: []string{"Filesystem features:"}},
		{fstype: "ext4", options: "-O project,quota", mount: "no", want: []string{"project"}},
		{fstype: "ext3", options: "-j -m 1 -L old", want: []string{"has_journal", "Filesystem volume name:   old"}},
		{fstype: "xfs", stripe: fsopt.Stripe{Chunk: 256 << 10, Disks: 3, Size: 1 << 30}, want: []string{"sunit=64     swidth=192 blks", "sunit=8 blks, lazy-count=1"}},
		{fstype: "xfs", options: "-K -l su=8b -L data", stripe: fsopt.Stripe{Chunk: 256 << 10, Disks: 2, Size: 1 << 30}, want: []string{"sunit=64     swidth=128 blks"}},
		{fstype: "xfs", options: "-d su=64k,sw=2,agcount=8 -i size=1024,maxpct=10,sparse=1 -m reflink=0,rmapbt=1,bigtime=1 -l su=4k",
			stripe: fsopt.Stripe{Chunk: 256 << 10, Disks: 2, Size: 1 << 30}, want: []string{"sunit=16     swidth=32 blks", "agcount=8", "isize=1024", "reflink=0"}},
		{fstype: "btrfs", options: "-L data -m dup -d single -n 16k", want: []string{"data"}},
		{fstype: "swap", options: "-L swap", mount: "no", want: []string{"swap"}},
	} {
		t.Run(row.fstype+" "+row.options, func(t *testing.T) {
			options, err := fsopt.Making(row.fstype, row.options)
			if err != nil {
				t.Fatal(err)
			}
			file := image(t, row.fstype, 1024, fsopt.Arguments(row.fstype, options, row.stripe)...)
			look := map[string][]string{"ext4": {"dumpe2fs", "-h"}, "ext3": {"dumpe2fs", "-h"}, "xfs": {"xfs_info"},
				"btrfs": {"btrfs", "filesystem", "label"}, "swap": {"blkid", "-p"}}[row.fstype]
			out, err := exec.Command(look[0], append(look[1:], file)...).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range row.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s shows no %q:\n%s", look[0], want, out)
				}
			}
			if row.mount == "no" {
				return
			}
			root := t.TempDir()
			if err := fsys.Mount(looped(t, file), root, "/mnt", row.fstype, row.mount); err != nil {
				t.Fatal(err)
			}
			if err := unix.Unmount(filepath.Join(root, "mnt"), 0); err != nil {
				t.Fatal(err)
			}
		})
	}
}
