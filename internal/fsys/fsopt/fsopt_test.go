package fsopt_test

import (
	"strings"
	"testing"

	"unlock/internal/fsys/fsopt"
	"unlock/internal/hint"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]struct {
		flags uintptr
		data  string
	}{
		"":                                 {0, ""},
		"defaults,noatime,data=ordered":    {1 << 10, "data=ordered"},
		"ro,rw,nosuid,suid,nodev":          {1 << 2, ""},
		"nofail,_netdev,x-a.b=c,comment=z": {0, ""},
		`context="a,b",noauto,,discard`:    {0, `context="a,b",discard`},
	} {
		if flags, data := fsopt.Split(options); flags != want.flags || data != want.data {
			t.Errorf("Split(%q) = %#x, %q, want %#x, %q", options, flags, data, want.flags, want.data)
		}
	}
}

func TestRefusedMountOptions(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		options string
		use     fsopt.Use
		want    string // in the error; "": none
	}{
		{"nofail", fsopt.Use{Type: "ext4"}, "the volume is required"},
		{"nofail", fsopt.Use{Type: "ext4", MayFail: true}, ""},
		{"defaults,auto,_netdev,nouser,comment=x,x-gvfs-hide,X-mount.mkdir", fsopt.Use{Type: "xfs"}, ""},
		{"noauto", fsopt.Use{Type: "ext4"}, "is mounted"},
		{"x-systemd.automount", fsopt.Use{Type: "ext4"}, "systemd's"},
		{"X-mount.owner=root", fsopt.Use{Type: "ext4"}, "mount's"},
		{"X-mount.mkdir=0700", fsopt.Use{Type: "ext4"}, "mount's"},
		{"users", fsopt.Use{Type: "ext4"}, "fstab's"},
		{"_netdev=1", fsopt.Use{Type: "ext4"}, `no mount option "_netdev=1"`},
		{"nofial", fsopt.Use{Type: "ext4", MayFail: true}, `no mount option "nofial"`},
		{"bind", fsopt.Use{Type: "ext4"}, "takes no mount option"},
		{`context="a:b:c:s0,c1"`, fsopt.Use{Type: "ext4"}, "takes no mount option"},
		{"noatime=1", fsopt.Use{Type: "ext4"}, `no mount option "noatime=1"`},
		{"commit=soon", fsopt.Use{Type: "ext4"}, `no mount option "commit=soon"`},
		{"commit", fsopt.Use{Type: "ext4"}, `no mount option "commit"`},
		{"discard=async", fsopt.Use{Type: "ext4"}, `no mount option "discard=async"`},
		{"commit=30", fsopt.Use{Type: "xfs"}, `xfs has no mount option`},
		{"delalloc", fsopt.Use{Type: "ext3"}, `ext3 has no mount option`},
		{"data=journal,delalloc", fsopt.Use{Type: "ext4"}, "data=journal"},
		{"commit=5", fsopt.Use{Type: "ext4", Make: []string{"-O", "dir_index,^has_journal"}}, "made without"},
		{"prjquota", fsopt.Use{Type: "ext4", Made: true}, "feature project"},
		{"prjquota", fsopt.Use{Type: "ext4", Made: true, Make: []string{"-O", "project,quota"}}, ""},
		{"prjquota", fsopt.Use{Type: "ext4"}, ""},
		{"subvol=/@home", fsopt.Use{Type: "btrfs"}, ""},
		{"subvol=/@home", fsopt.Use{Type: "btrfs", Made: true}, "no subvol"},
		{"subvol=" + strings.Repeat("a", 3000), fsopt.Use{Type: "btrfs"}, "more than the kernel takes"},
	} {
		err := fsopt.CheckMount(row.options, row.use)
		switch {
		case row.want == "" && err != nil:
			t.Errorf("CheckMount(%q, %+v) = %v, want none", row.options, row.use, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("CheckMount(%q, %+v) = %v, want %q", row.options, row.use, err, row.want)
		case row.want != "" && hint.Of(err) == "" && len(row.options) < 100:
			t.Errorf("CheckMount(%q, %+v) = %v, without advice", row.options, row.use, err)
		}
	}
}

func TestMaking(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ fstype, text, want, err string }{
		{"ext4", "-m 0 -L data", "-m 0 -L data", ""},
		{"ext4", "-m0 -q -F", "-m 0", ""},
		{"ext3", "-j", "-j", ""},
		{"xfs", "-K -l su=8b", "-l su=8b", ""},
		{"btrfs", "-d single -m dup", "-d single -m dup", ""},
		{"swap", "-L swap", "-L swap", ""},
		{"ext4", "-m", "", "nothing follows -m"},
		{"ext4", "-m 90", "", `no -m "90"`},
		{"ext4", "-m 1 -m 2", "", "twice"},
		{"ext4", "-t ext2", "", `takes no "-t"`},
		{"ext4", "--help", "", `takes no "--help"`},
		{"ext4", "/dev/sda", "", `takes no "/dev/sda"`},
		{"ext4", "-L -n", "", "no -L"},
		{"ext4", "-L seventeen-letters", "", "no -L"},
		{"ext4", "-E discard", "", "no -E"},
		{"ext4", "-E stride=2,stride=3", "", "no -E"},
		{"ext4", "-O project", "", "quota only"},
		{"ext4", "-O ^extents", "", "no -O"},
		{"ext3", "-O ^has_journal", "", "no -O"},
		{"xfs", "-d su=64k", "", "together"},
		{"xfs", "-d file,name=/etc/passwd", "", "no -d"},
		{"xfs", "-p /etc/shadow", "", `takes no "-p"`},
		{"btrfs", "-r /etc", "", `takes no "-r"`},
		{"", "-L x", "", "no program"},
	} {
		args, err := fsopt.Making(row.fstype, row.text)
		if got := strings.Join(args, " "); err == nil && (row.err != "" || got != row.want) || err != nil && (row.err == "" || !strings.Contains(err.Error(), row.err)) {
			t.Errorf("Making(%s, %q) = %q, %v, want %q, %q", row.fstype, row.text, got, err, row.want, row.err)
		}
	}
}

func TestArguments(t *testing.T) {
	t.Parallel()
	four := fsopt.Stripe{Chunk: 256 << 10, Disks: 4, Size: 1 << 40}
	for _, row := range []struct {
		fstype, text string
		stripe       fsopt.Stripe
		want         string
	}{
		{"xfs", "", four, "-q -f -K -d su=262144,sw=4 -l su=32k"},
		{"xfs", "-l su=8b", four, "-q -f -K -d su=262144,sw=4 -l su=8b"},
		{"xfs", "-d agcount=8", four, "-q -f -K -l su=32k -d su=262144,sw=4,agcount=8"},
		{"xfs", "-d su=64k,sw=2", four, "-q -f -K -l su=32k -d su=64k,sw=2"},
		{"xfs", "-L x", fsopt.Stripe{}, "-q -f -K -L x"},
		{"xfs", "", fsopt.Stripe{Chunk: 256 << 10, Disks: 4, Size: 1 << 29}, "-q -f -K"},
		{"ext4", "-m 0 -E lazy_itable_init=0 -L x", four, "-t ext4 -q -F -E nodiscard,lazy_itable_init=0 -m 0 -L x"},
		{"ext3", "-j", fsopt.Stripe{}, "-t ext3 -q -F -E nodiscard -j"},
	} {
		options, err := fsopt.Making(row.fstype, row.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(fsopt.Arguments(row.fstype, options, row.stripe), " "); got != row.want {
			t.Errorf("Arguments(%s, %q) = %q, want %q", row.fstype, row.text, got, row.want)
		}
	}
}
