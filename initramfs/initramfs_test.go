package initramfs_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"unlock/initramfs"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/test/program"
)

const goodConfig = `
[key]
source  = "file:/etc/unlock/key.bin"
kms_key = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555"
[[volume]]
name       = "secretfs"
device     = "instance-store"
format     = "blank"
filesystem = "ext4"
mount      = "/mnt/secretfs"
`

// lib makes a /lib/modules/VERSION in which dm-crypt needs two modules, one of
// them compressed, xts has a soft dependency, and ext4 is built in.
func lib(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "6.1.0-test")
	var packed bytes.Buffer
	zw, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write([]byte("dm-mod")); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"modules.dep": "kernel/md/dm-mod.ko.zst: kernel/md/dax.ko\nkernel/md/dax.ko:\n" +
			"kernel/md/dm-crypt.ko: kernel/md/dm-mod.ko.zst kernel/md/dax.ko\nkernel/crypto/xts.ko:\nkernel/crypto/ecb.ko:\n" +
			"kernel/fs/xfs.ko:\nkernel/net/ena.ko:\n" +
			"kernel/fs/btrfs.ko: kernel/lib/raid6.ko\nkernel/lib/raid6.ko:\nkernel/crypto/xxhash_generic.ko:\nkernel/crypto/blake2b_generic.ko:\nkernel/crypto/blake2b-avx.ko:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/drivers/nvme/host/nvme.ko\n",
		"modules.softdep": "# comment\nsoftdep xts pre: ecb\nsoftdep ecb pre: xts\nsoftdep btrfs pre: crc32c xxhash64 blake2b-256 post: ena\n",
		"modules.alias": "# comment\nalias xxhash64 xxhash_generic\nalias crypto-xxhash64 xxhash_generic\n" +
			"alias blake2b-256 blake2b_generic\nalias blake2b-256 blake2b_avx\n",
		"kernel/fs/btrfs.ko":               "btrfs",
		"kernel/lib/raid6.ko":              "raid6",
		"kernel/crypto/xxhash_generic.ko":  "xxhash",
		"kernel/crypto/blake2b_generic.ko": "blake2b",
		"kernel/crypto/blake2b-avx.ko":     "blake2b",
		"kernel/md/dm-mod.ko.zst":          packed.String(),
		"kernel/md/dax.ko":                 "dax",
		"kernel/md/dm-crypt.ko":            "dm-crypt",
		"kernel/crypto/xts.ko":             "xts",
		"kernel/crypto/ecb.ko":             "ecb",
		"kernel/fs/xfs.ko":                 "xfs",
		"kernel/net/ena.ko":                "ena",
	} {
		write(t, filepath.Join(dir, name), text)
	}
	return dir
}

func write(t *testing.T, file, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func options(t *testing.T, text string) initramfs.Options {
	t.Helper()
	dir := t.TempDir()
	return initramfs.Options{
		Unlock:  write(t, filepath.Join(dir, "unlock"), "the binary"),
		Config:  write(t, filepath.Join(dir, "unlock.toml"), text),
		Modules: lib(t),
		Files:   []string{write(t, filepath.Join(dir, "key"), "ciphertext") + ":/etc/unlock/key.bin"},
		Version: "1.2.3",
	}
}

// unpack returns the content of each file and the order of all names.
func unpack(t *testing.T, image []byte) (files map[string]string, names []string) {
	t.Helper()
	files = map[string]string{}
	records, err := cpio.ReadAllRecords(&cpio.EOFReader{RecordReader: cpio.Newc.Reader(bytes.NewReader(image))})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		names = append(names, r.Name)
		if r.MTime != 0 {
			t.Errorf("%s has time %d, want 0", r.Name, r.MTime)
		}
		if r.ReaderAt == nil {
			continue
		}
		data, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
		if err != nil {
			t.Fatal(err)
		}
		files[r.Name] = string(data)
	}
	return files, names
}

func build(t *testing.T, o initramfs.Options) []byte {
	t.Helper()
	var image bytes.Buffer
	if err := initramfs.Build(&image, o); err != nil {
		t.Fatal(err)
	}
	return image.Bytes()
}

func TestBuild(t *testing.T) {
	t.Parallel()
	o := options(t, goodConfig)
	var notes []string
	o.Note = func(s string) { notes = append(notes, s) }
	image := build(t, o)
	o.Note = nil
	if !bytes.Equal(image, build(t, o)) {
		t.Error("two builds differ")
	}
	files, names := unpack(t, image)
	for name, want := range map[string]string{
		"init":                     "the binary",
		"etc/unlock.toml":          goodConfig,
		"etc/unlock/key.bin":       "ciphertext",
		"etc/unlock/release":       "1.2.3\n",
		"etc/unlock/modules":       "dax dm-mod dm-crypt ecb xts ena",
		"etc/unlock/modules.xfs":   "xfs",
		"etc/unlock/modules.btrfs": "raid6 xxhash_generic blake2b_generic blake2b-avx btrfs", // its checksums are soft dependencies, by alias
		"lib/modules/6.1.0-test/kernel/md/dm-mod.ko": "dm-mod",
	} {
		got := files[name]
		if strings.HasPrefix(name, "etc/unlock/modules") {
			got = stems(got)
		}
		if got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"dev/console", "dev/null", "proc", "run", "sys", "sysroot", "sbin/mke2fs", "etc/mke2fs.conf"} {
		if !slices.Contains(names, name) {
			t.Errorf("the image has no %s", name)
		}
	}
	for i, name := range names {
		if dir := filepath.Dir(name); dir != "." && !slices.Contains(names[:i], dir) {
			t.Errorf("%s comes before its directory", name)
		}
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "ixgbevf") || strings.Contains(notes[0], "nvme") {
		t.Errorf("notes are %q, want one that names ixgbevf and not nvme, which is built in", notes)
	}
}

// stems turns a list of module paths into names.
func stems(list string) string {
	var names []string
	for _, file := range strings.Fields(list) {
		names = append(names, strings.TrimSuffix(filepath.Base(file), ".ko"))
	}
	return strings.Join(names, " ")
}

func TestMkfsOnlyWhereFormatting(t *testing.T) {
	t.Parallel()
	o := options(t, strings.Replace(goodConfig, `"blank"`, `"never"`, 1))
	if _, names := unpack(t, build(t, o)); slices.Contains(names, "sbin/mke2fs") {
		t.Error("the image has mke2fs, though nothing is ever formatted")
	}
}

func TestProgramsStayExecutable(t *testing.T) {
	t.Parallel()
	o := options(t, goodConfig)
	program := write(t, filepath.Join(t.TempDir(), "mke2fs"), "a program")
	if err := os.Chmod(program, 0o700); err != nil {
		t.Fatal(err)
	}
	o.Files = append(o.Files, program+":/sbin/mke2fs")
	records, err := cpio.ReadAllRecords(&cpio.EOFReader{RecordReader: cpio.Newc.Reader(bytes.NewReader(build(t, o)))})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"sbin/mke2fs": 0o755, "etc/unlock/key.bin": 0o644}
	for _, r := range records {
		if perm, ok := want[r.Name]; ok && r.Mode&0o777 != perm {
			t.Errorf("%s has mode %o, want %o", r.Name, r.Mode&0o777, perm)
		}
		delete(want, r.Name)
	}
	if len(want) > 0 {
		t.Errorf("the image lacks %v", want)
	}
}

// TestOtherArchitecture: this system's programs are not put where unlock could not run them.
func TestOtherArchitecture(t *testing.T) {
	t.Parallel()
	program.Need(t, "mke2fs")
	o := options(t, goodConfig)
	write(t, o.Unlock, header(elf.EM_S390))
	err := initramfs.Build(io.Discard, o)
	if err == nil || !strings.Contains(err.Error(), "mke2fs is for another architecture than unlock: ") || !strings.Contains(hint.Of(err), "--file") {
		t.Errorf("Build = %v, hint %q", err, hint.Of(err))
	}

	var notes string
	o.Note = func(s string) { notes += s + "\n" }
	given := func(name string) {
		o.Files = append(o.Files, write(t, filepath.Join(t.TempDir(), name), "another "+name)+":/sbin/"+name)
	}
	given("mke2fs")
	files, names := unpack(t, build(t, o))
	if !strings.Contains(notes, "without being checked") || slices.Contains(names, "sbin/e2fsck") || files["sbin/mke2fs"] != "another mke2fs" {
		t.Errorf("notes %q, the image has %q", notes, names)
	}
	notes = ""
	given("e2fsck")
	files, names = unpack(t, build(t, o))
	if strings.Contains(notes, "e2fsck") || files["sbin/e2fsck"] != "another e2fsck" || !slices.Contains(names, "etc/mke2fs.conf") {
		t.Errorf("notes %q, the image has %q", notes, names)
	}
	if i := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, "ld-linux") }); i >= 0 {
		t.Errorf("the image has this system's %s", names[i])
	}
}

// header is that of a program.
func header(m elf.Machine) string {
	b := make([]byte, 64)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], uint16(elf.ET_EXEC))
	binary.LittleEndian.PutUint16(b[18:], uint16(m))
	binary.LittleEndian.PutUint32(b[20:], 1)
	return string(b)
}

func TestLoopForFiles(t *testing.T) {
	t.Parallel()
	o := options(t, strings.Replace(goodConfig, `"instance-store"`, `"file:/var/secret"`+"\nsize = \"1GiB\"", 1))
	dep := filepath.Join(o.Modules, "modules.dep")
	old, err := os.ReadFile(dep)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dep, string(old)+"kernel/block/loop.ko:\n")
	write(t, filepath.Join(o.Modules, "kernel/block/loop.ko"), "loop")
	files, _ := unpack(t, build(t, o))
	if got := stems(files["etc/unlock/modules"]); !strings.HasSuffix(got, " loop") {
		t.Errorf("modules are %q, want loop among them", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*testing.T, *initramfs.Options)
		want   string
	}{
		{"bad configuration", func(t *testing.T, o *initramfs.Options) { write(t, o.Config, "[key]\nsauce = 1\n") }, `unlock.toml:2: unknown setting "key.sauce"`},
		{"modules of another architecture", func(t *testing.T, o *initramfs.Options) {
			o.Modules = lib(t)
			write(t, o.Unlock, header(elf.EM_S390))
			write(t, filepath.Join(o.Modules, "kernel/md/dax.ko"), header(elf.EM_RISCV))
		}, "kernel/md/dax.ko is for another architecture than unlock: riscv, not s390"},
		{"ciphertext that is not there", func(t *testing.T, o *initramfs.Options) { o.Files = nil }, "/etc/unlock/key.bin"},
		{"no dm-crypt", func(t *testing.T, o *initramfs.Options) {
			write(t, filepath.Join(o.Modules, "modules.dep"), "kernel/crypto/xts.ko:\n")
		}, "kernel 6.1.0-test has no dm-mod"},
		{"no kernel", func(t *testing.T, o *initramfs.Options) { o.Modules = t.TempDir() }, "modules.dep"},
		{"no binary", func(t *testing.T, o *initramfs.Options) { o.Unlock += "nowhere" }, "adding /init"},
		{"file without a place", func(t *testing.T, o *initramfs.Options) { o.Files = append(o.Files, "/etc/hosts") }, "HOST:IMAGE"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := options(t, goodConfig)
			test.change(t, &o)
			var image bytes.Buffer
			err := initramfs.Build(&image, o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Build = %v, want an error with %q", err, test.want)
			}
			if image.Len() > 0 {
				t.Errorf("Build wrote %d bytes before it failed", image.Len())
			}
			if bad := new(config.Error); errors.As(err, &bad) != (test.name == "bad configuration") {
				t.Errorf("Build = %T", err)
			}
		})
	}
}

func TestZstd(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	zw, err := initramfs.Zstd(&packed)
	if err != nil {
		t.Fatal(err)
	}
	image := build(t, options(t, goodConfig))
	if _, err := zw.Write(image); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	zr, err := zstd.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	if got, err := io.ReadAll(zr); err != nil || !bytes.Equal(got, image) {
		t.Errorf("unpacked %d bytes, %v; want the %d bytes of the image", len(got), err, len(image))
	}
}
