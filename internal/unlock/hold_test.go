package unlock_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"unlock/internal/block"
	"unlock/internal/config"
	"unlock/internal/dm"
	"unlock/internal/hint"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/plan"
	"unlock/internal/secret"
	"unlock/internal/status"
	"unlock/internal/unlock"
)

// TestReplaced: a disk that is another one when its turn comes is neither mapped nor
// written to, whatever was planned for it.
func TestReplaced(t *testing.T) {
	t.Parallel()
	ofObject := config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectInstanceStore}, Format: config.FormatBlank,
		Filesystem: "ext4", Key: config.Key{Source: source.MustParse("s3://bucket/object")}}
	anew := ofObject
	anew.Format, anew.Key = config.FormatEphemeral, config.Key{Source: source.Ephemeral.Source()}
	made := func(t *testing.T, v config.Volume, phase int) *memdisk {
		c := newComputer(newDisk())
		mustBoot(t, c, v)
		d, of := newDisk(), phases(c.disks[0].log)
		for i, o := range c.disks[0].log {
			if of[i] <= phase {
				d.put(o)
			}
		}
		return d
	}
	for name, row := range map[string]struct {
		volume  config.Volume
		planned func(t *testing.T) *memdisk
	}{
		"blank":                {ofObject, func(*testing.T) *memdisk { return newDisk() }},
		"formed, without mkfs": {ofObject, func(t *testing.T) *memdisk { return made(t, ofObject, phaseFormed) }},
		"ready":                {ofObject, func(t *testing.T) *memdisk { return made(t, ofObject, phaseReady) }},
		"ephemeral":            {anew, func(t *testing.T) *memdisk { return made(t, anew, phaseReady) }},
		"begun": {ofObject, func(t *testing.T) *memdisk {
			d, begun := newDisk(), newDisk()
			if _, err := luks.Format(d, diskSize, passphrase(t), luks.FormatOptions{UUID: uuid(), SectorSize: 512}); err != nil {
				t.Fatal(err)
			}
			begun.put(d.log[0])
			return begun
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newComputer(row.planned(t))
			p := planned(row.volume, c.look())
			if len(p.Steps) != 1 {
				t.Fatalf("planned %v", p.Refusals)
			}
			was := c.disks[0]
			other := made(t, ofObject, phaseReady)
			other.log, was.log = nil, nil
			before := []map[int64]*[sector]byte{maps.Clone(was.sectors), maps.Clone(other.sectors)}
			c.disks[0] = other
			_, err := c.apply(p)
			if err == nil || !strings.Contains(err.Error(), "has changed since it was looked at") || !strings.Contains(hint.Of(err), "replaced") {
				t.Errorf("%v; hint %q", err, hint.Of(err))
			}
			if len(c.active) > 0 || len(other.log) > 0 {
				t.Errorf("%d mappings, %d writes", len(c.active), len(other.log))
			}
			if !maps.Equal(before[0], was.sectors) || !maps.Equal(before[1], other.sectors) {
				t.Error("a disk is not as it was")
			}
		})
	}
}

// TestHeld: the device number that is mapped is that of the disk that was compared, and
// it is open meanwhile.
func TestHeld(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	dir := t.TempDir()
	loop := func(name string) (string, block.Disk) {
		img := filepath.Join(dir, name)
		f, err := os.Create(img)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(diskSize); err != nil {
			t.Fatal(err)
		}
		if _, err := luks.Format(f, diskSize, passphrase(t), luks.FormatOptions{UUID: "6f2b1c9e-0000-4000-8000-000000000001", SectorSize: 512}); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("losetup", "-f", "--show", img).CombinedOutput()
		if err != nil {
			t.Skipf("no loop device: %s", out) // in a container
		}
		path := strings.TrimSpace(string(out))
		t.Cleanup(func() { exec.Command("losetup", "-d", path).Run() })
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return path, block.Disk{Name: name, Path: filepath.Join(dir, "disk"), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev), Size: diskSize, SectorSize: 512}
	}
	first, d := loop("first")
	second, _ := loop("second")
	if out, err := exec.Command("cp", filepath.Join(dir, "first"), filepath.Join(dir, "second")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out) // the same volume, to the last byte
	}
	link := func(to string) {
		os.Remove(d.Path)
		if err := os.Symlink(to, d.Path); err != nil {
			t.Fatal(err)
		}
	}
	link(first)
	c := unlock.Inspect(luks.Limits{}, d)
	v := config.Volume{Name: "data", Device: config.Selector{Kind: config.SelectPath, Value: d.Path}, Key: config.Key{Source: source.MustParse("s3://bucket/object")}}
	p := planned(v, []*plan.Candidate{c})
	if len(p.Steps) != 1 {
		t.Fatalf("planned %+v", p.Refusals)
	}
	for _, to := range []string{first, second} {
		link(to)
		k := &opens{path: to}
		a := unlock.Apply{Keys: giveKey, Rec: status.NewRecorder(), Log: t.Logf, Kernel: k}
		r := a.Run(t.Context(), p)[0]
		if ok := to == first; ok != (r.Err == nil) || ok != k.open {
			t.Errorf("with %s in its place: %v, mapped while it was open: %v", to, r.Err, k.open)
		}
	}
}

// opens is a kernel that looks whether a device is open when it is mapped.
type opens struct {
	unlock.Kernel
	path string
	open bool
}

func (k *opens) Create(name, _ string, _ dm.Target, _ dm.Options) (dm.Device, error) {
	links, err := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == k.path {
			k.open = true
		}
	}
	return dm.Device{Name: name}, err
}

func passphrase(t *testing.T) *secret.Bytes {
	p := secret.Take([]byte(sealed))
	t.Cleanup(p.Wipe)
	return p
}
