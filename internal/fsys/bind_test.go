package fsys_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/config"
	"unlock/internal/fsys"
)

// grown has a tree as packages and services leave it.
const grown = `
umask 022
mkdir -p var/lib/kubelet/plugins var/lib/kubelet/empty
cd var/lib/kubelet
echo one >file; chmod 640 file; chown 12:34 file
ln file plugins/same; ln file again
ln -s ../nowhere link; chown -h 5:6 link
truncate -s 5M holes; printf x | dd of=holes bs=1 seek=3000000 conv=notrunc 2>/dev/null; truncate -s 16M hole
cp /bin/true suid; chmod 4755 suid
mkfifo fifo; mknod node c 1 3; chmod 600 node
printf '%s' "a name with blanks" >"with blanks"; : >"$(printf 'new\nline')"
setfattr -n user.note -v kept file; setfattr -n trusted.mark -v root file
setfattr -n security.selinux -v system_u:object_r:container_file_t:s0 file
setfattr -n security.selinux -v system_u:object_r:container_var_lib_t:s0 .
setfattr -h -n security.selinux -v system_u:object_r:bin_t:s0 link
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 suid
mkdir deep; for i in 1 2 3 4 5; do mkdir "deep/$i"; echo "$i" >"deep/$i/f"; done
touch -d @1000000000.123456789 file link holes deep plugins
chmod 1750 . ; chown 7:8 . ; touch -d @1100000000 .
`

// listing is all that is to be kept of a tree.
func listing(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-euc", `cd "$1"
		find . -printf '%p %y %m %U %G %T@ %l\n' | sort; find . ! -type d -printf '%p %n\n' | sort
		find . ! -type d -printf '%p %s\n' | sort
		find . -type f -links +1 -printf '%i %p\n' | sort | awk '{ if ($1 != last) n++; last = $1; print n, $2 }' | sort
		find . -type f -print0 | sort -z | xargs -0 -n 1 sha256sum
		getfattr -R -h -d -m - -e hex . 2>/dev/null | sort
		test "$(stat -c %b holes)" -lt 1000; test "$(stat -c %b hole)" = 0`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("listing %s: %v: %s", dir, err, out)
	}
	return string(out)
}

// volumed is a root with a tree of that shell script, and a volume on /mnt.
func volumed(t *testing.T, fstype, script string) (root string) {
	t.Helper()
	device := looped(t, image(t, fstype, sized[fstype]))
	root = t.TempDir()
	if out, err := exec.Command("sh", "-euc", `cd "$1"; `+script, "sh", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := fsys.Mount(device, root, "/mnt", fstype, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(filepath.Join(root, "mnt"), unix.MNT_DETACH) })
	return root
}

// TestSeed: a copy is what cp -a makes of it, and the directory it lies in is as the one
// it covers.
func TestSeed(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			root := volumed(t, fstype, grown)
			covered := filepath.Join(root, "var/lib/kubelet")
			want := listing(t, covered)
			if err := fsys.Bind(root, "/mnt", config.Bind{Path: "/var/lib/kubelet", From: "kubelet", Seed: true}, func() {}); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(covered, unix.MNT_DETACH)
			if got := listing(t, covered); got != want {
				t.Errorf("what is bound is\n%s\nwant\n%s", got, want)
			}
			if got := listing(t, filepath.Join(root, "mnt/kubelet")); got != want {
				t.Error("what lies on the volume is something else")
			}
			if out, err := exec.Command("cp", "-a", covered, filepath.Join(root, "reference")).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			if got := listing(t, filepath.Join(root, "reference")); got != want {
				t.Error("cp -a makes something else of it")
			}
		})
	}
}

// TestSeedInterrupted: wherever a copy ends, the directory is not there yet, and the next
// boot makes all of it.
func TestSeedInterrupted(t *testing.T) {
	root := volumed(t, "ext4", grown)
	covered := filepath.Join(root, "var/lib/kubelet")
	want := listing(t, covered)
	b := config.Bind{Path: "/var/lib/kubelet", From: "data/kubelet", Seed: true}
	type cut struct{}
	until := func(most int) (done bool) {
		n := 0
		defer func() {
			if r := recover(); r != nil && r != (cut{}) {
				panic(r)
			}
		}()
		err := fsys.Bind(root, "/mnt", b, func() {
			if n++; n > most {
				panic(cut{})
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	cuts := 0
	for most := 0; !until(most); most++ {
		cuts++
		if _, err := os.Stat(filepath.Join(root, "mnt/data/kubelet")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("cut off after %d steps, the directory has its name: %v", most, err)
		}
	}
	defer unix.Unmount(covered, unix.MNT_DETACH)
	if cuts < 20 {
		t.Errorf("cut off %d times, want at least 20", cuts)
	}
	if got := listing(t, covered); got != want {
		t.Errorf("what is bound is\n%s\nwant\n%s", got, want)
	}
	entries, err := os.ReadDir(filepath.Join(root, "mnt/data"))
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it lie %v, %v", entries, err)
	}
}

// TestBind: without a seed the directory is empty, and as what it covers; what is there
// stays as it is.
func TestBind(t *testing.T) {
	root := volumed(t, "ext4", grown+"\nln -s kubelet ../kubelet-link\n")
	covered := filepath.Join(root, "var/lib/kubelet")
	stat := func(dir string) string {
		out, err := exec.Command("sh", "-euc", `cd "$1"; stat -c '%a %u %g %Y' .; getfattr -d -m - -e hex . 2>/dev/null | grep -v lost`, "sh", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	want := stat(covered)
	for range 2 {
		if err := fsys.Bind(root, "/mnt", config.Bind{Path: "/var/lib/kubelet-link", From: "kubelet"}, func() {}); err != nil {
			t.Fatal(err)
		}
		if got := stat(covered); got != want && !strings.HasPrefix(got, "700 ") {
			t.Errorf("it is\n%s\nwant\n%s", got, want)
		}
		if err := os.Chmod(covered, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Unmount(covered, 0); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(root, "mnt/kubelet")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("what was there was changed: %v, %v", info, err)
	}
	if err := fsys.Bind(root, "/mnt", config.Bind{Path: "/new/place", From: "place"}, func() {}); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(root, "new/place"), unix.MNT_DETACH)
	if info, err := os.Stat(filepath.Join(root, "mnt/place")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("a new place is %v, %v, want mode 0755", info, err)
	}
	// A link on the volume does not lead out of it.
	if err := os.Symlink("/etc", filepath.Join(root, "mnt/away")); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Bind(root, "/mnt", config.Bind{Path: "/away", From: "away"}, func() {}); err == nil {
		t.Error("a link led out of the volume")
		unix.Unmount(filepath.Join(root, "away"), unix.MNT_DETACH)
	}
}

func TestSeedTooLarge(t *testing.T) {
	root := volumed(t, "ext4", "mkdir big; dd if=/dev/zero of=big/f bs=1M count=80 2>/dev/null")
	b := config.Bind{Path: "/big", From: "big", Seed: true}
	if err := fsys.Bind(root, "/mnt", b, func() {}); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Bind = %v, want ENOSPC", err)
	}
	if _, err := os.Stat(filepath.Join(root, "mnt/big")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half of it has the name: %v", err)
	}
	if err := os.Truncate(filepath.Join(root, "big/f"), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := fsys.Bind(root, "/mnt", b, func() {}); err != nil {
		t.Fatal(err)
	}
	unix.Unmount(filepath.Join(root, "big"), 0)
}

func TestOwn(t *testing.T) {
	root := volumed(t, "ext4", `mkdir etc; printf 'root:x:0:0::/:\npostgres:x:26:27::/:\n' >etc/passwd; printf 'root:x:0:\ndb:x:99:\n' >etc/group`)
	mounted := filepath.Join(root, "mnt")
	for _, row := range []struct {
		owner    string
		mode     uint32
		fill     bool
		want     string
		mistaken string
	}{
		{owner: "postgres", want: "755 26 0"},
		{owner: ":db", mode: 0o1770, want: "1770 26 99"},
		{owner: "5:6", want: "1770 5 6"},
		{owner: "nobody-here", want: "1770 5 6", mistaken: `"nobody-here" is not in /etc/passwd`},
		{owner: "root:nogroup-here", want: "1770 5 6", mistaken: `"nogroup-here" is not in /etc/group`},
		{owner: "root:root", mode: 0o700, fill: true, want: "1770 5 6"},
	} {
		if row.fill {
			if err := os.Mkdir(filepath.Join(mounted, "in-use"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := fsys.Own(root, "/mnt", row.owner, row.mode)
		if row.mistaken == "" && err != nil || row.mistaken != "" && (err == nil || !strings.Contains(err.Error(), row.mistaken)) {
			t.Errorf("Own(%q) = %v, want %q", row.owner, err, row.mistaken)
		}
		if out, err := exec.Command("stat", "-c", "%a %u %g", mounted).Output(); err != nil || strings.TrimSpace(string(out)) != row.want {
			t.Errorf("Own(%q, %o) left %s, %v, want %s", row.owner, row.mode, out, err, row.want)
		}
	}
}

// TestMounted: also where a directory lies on another of the same file system.
func TestMounted(t *testing.T) {
	root := volumed(t, "ext4", "mkdir -p var/lib/containerd srv")
	for _, row := range []struct {
		bind config.Bind
		dir  string
	}{
		{config.Bind{Path: "/var/lib", From: "lib", Seed: true}, "/var/lib"},
		{config.Bind{Path: "/var/lib/containerd", From: "containerd"}, "/var/lib/containerd"},
	} {
		if fsys.Mounted(root, row.dir) {
			t.Errorf("something is mounted on %s already", row.dir)
		}
		if err := fsys.Bind(root, "/mnt", row.bind, func() {}); err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(filepath.Join(root, row.dir), unix.MNT_DETACH)
		if !fsys.Mounted(root, row.dir) {
			t.Errorf("nothing is mounted on %s", row.dir)
		}
	}
	for dir, want := range map[string]bool{"/mnt": true, "/srv": false, "/nowhere": false, "/mnt/lib": false} {
		if got := fsys.Mounted(root, dir); got != want {
			t.Errorf("Mounted(%s) = %v, want %v", dir, got, want)
		}
	}
}
