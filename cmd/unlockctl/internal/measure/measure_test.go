package measure_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/measure"
	"unlock/test/program"
)

// section of a program that is made.
type section struct {
	name    string
	content []byte
}

// executable makes one for UEFI with these sections, as far as its headers matter.
func executable(sections ...section) []byte {
	const align, headers = 512, 1024
	le := binary.LittleEndian
	b := make([]byte, headers)
	copy(b, "MZ")
	le.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00\x64\x86")
	le.PutUint16(b[70:], uint16(len(sections)))
	le.PutUint16(b[84:], 240)
	optional := b[88:]
	le.PutUint16(optional, 0x20b)
	le.PutUint32(optional[32:], align)
	le.PutUint32(optional[36:], align)
	le.PutUint32(optional[60:], headers)
	le.PutUint16(optional[68:], 10) // an application
	le.PutUint32(optional[108:], 16)
	virtual := 4096
	for i, s := range sections {
		h := b[88+240+40*i:]
		size := (len(s.content) + align - 1) / align * align
		copy(h, s.name)
		le.PutUint32(h[8:], uint32(len(s.content)))
		le.PutUint32(h[12:], uint32(virtual))
		le.PutUint32(h[16:], uint32(size))
		le.PutUint32(h[20:], uint32(len(b)))
		le.PutUint32(h[36:], 0x40000040)
		b = append(b, append(bytes.Clone(s.content), make([]byte, size-len(s.content))...)...)
		virtual += (size + 4095) / 4096 * 4096
	}
	le.PutUint32(b[88+56:], uint32(virtual))
	return b
}

func sdmagic(what string) section {
	return section{".sdmagic", []byte("#### LoaderInfo: " + what + " ####\x00")}
}

// uki is a unified kernel image with a version of systemd-stub.
func uki(version string, more ...section) []byte {
	return executable(append([]section{{".text", []byte("code")}, sdmagic("systemd-stub " + version), {".osrel", []byte("ID=test\n")}, {".cmdline", []byte("ro")},
		{".initrd", []byte("an initramfs")}, {".linux", executable(section{".text", []byte("a kernel")})}}, more...)...)
}

func image(t *testing.T, name string, data []byte) *measure.Image {
	t.Helper()
	i, err := measure.Read(name, data)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestSecureBootOff holds PCR 7 against that of a real EC2 instance.
func TestSecureBootOff(t *testing.T) {
	t.Parallel()
	p, err := measure.Predict([]*measure.Image{image(t, "a", uki("257.9"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// That of the same instance, and of every one whose firmware starts no driver.
	if driverless := "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"; p.PCRs["2"] != driverless {
		t.Errorf("PCR 2 = %s, want %s", p.PCRs["2"], driverless)
	}
	const real = "98441c7f7625d10058c47683aec486ce"
	if !strings.HasPrefix(p.PCRs["7"], real) {
		t.Errorf("PCR 7 = %s, want %s…", p.PCRs["7"], real)
	}
	if zero := strings.Repeat("0", 96); p.PCRs["12"] != zero || p.PCRs["13"] != zero {
		t.Errorf("PCR 12 and 13 = %s, %s", p.PCRs["12"], p.PCRs["13"])
	}
}

// TestKernelWithin is who measures the kernel in a unified image: the firmware, where an
// older stub has it load that.
func TestKernelWithin(t *testing.T) {
	t.Parallel()
	keys, cert := signer(t)
	for version, want := range map[string]struct{ off, on int }{"252.39-1~deb12u2": {1, 0}, "257.13": {1, 0}, "258": {0, 0}, "262.1-1": {0, 0}} {
		off, err := measure.Predict([]*measure.Image{image(t, "a", uki(version))}, nil)
		if err != nil {
			t.Fatal(err)
		}
		signed := sign(t, keys, cert, uki(version))
		on, err := measure.Predict([]*measure.Image{image(t, "a", signed)}, &measure.Variables{PK: esl(cert), KEK: esl(cert), DB: esl(cert)})
		if err != nil {
			t.Fatal(err)
		}
		for state, row := range map[string]struct {
			p    *measure.Prediction
			want int
		}{"off": {off, want.off}, "on": {on, want.on}} {
			n := 0
			for _, e := range row.p.Events {
				if strings.HasSuffix(e.What, "section .linux") && e.PCR == 4 {
					n++
				}
			}
			if n != row.want {
				t.Errorf("stub %s, Secure Boot %s: %d kernels in PCR 4, want %d", version, state, n, row.want)
			}
		}
		if off.PCRs["7"] == on.PCRs["7"] || off.PCRs["11"] != on.PCRs["11"] || !on.SecureBoot || off.SecureBoot {
			t.Errorf("stub %s: off %v, on %v", version, off.PCRs, on.PCRs)
		}
	}
}

// TestAmazonLinux: a stub of Amazon Linux 2023 without version is measured as 252 is; one
// of another system stays unpredictable.
func TestAmazonLinux(t *testing.T) {
	t.Parallel()
	unnamed := func(release string) []byte {
		return executable(section{".text", []byte("code")}, section{".osrel", []byte(release)}, section{".linux", executable(section{".text", []byte("a kernel")})})
	}
	const al2023 = "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\n"
	keys, cert := signer(t)
	for name, row := range map[string]struct {
		image   []byte
		vars    *measure.Variables
		kernels int
		err     string
	}{
		"Secure Boot off": {image: unnamed(al2023), kernels: 1},
		"Secure Boot on":  {image: sign(t, keys, cert, unnamed(al2023)), vars: &measure.Variables{PK: esl(cert), KEK: esl(cert), DB: esl(cert)}},
		"Amazon Linux 2":  {image: unnamed("NAME=\"Amazon Linux\"\nVERSION=\"2\"\n"), err: "a stub without version"},
		"another system":  {image: unnamed("NAME=\"Debian\"\nVERSION=\"2023\"\n"), err: "a stub without version"},
	} {
		p, err := measure.Predict([]*measure.Image{image(t, "a", row.image)}, row.vars)
		if row.err != "" {
			if !errors.Is(err, measure.ErrUnpredictable) || !strings.Contains(err.Error(), row.err) {
				t.Errorf("%s: %v, want %q", name, err, row.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		n := 0
		for _, e := range p.Events {
			if strings.HasSuffix(e.What, "section .linux") && e.PCR == 4 {
				n++
			}
		}
		if n != row.kernels {
			t.Errorf("%s: %d kernels in PCR 4, want %d", name, n, row.kernels)
		}
	}
}

// TestCommandLine is what doctor looks for.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"root=LABEL=x nohibernate\n": "root=LABEL=x nohibernate", "ro\x00": "ro", "": ""} {
		if got := image(t, "a", executable(section{".cmdline", []byte(text)})).CommandLine(); got != want {
			t.Errorf("CommandLine = %q, want %q", got, want)
		}
	}
}

// TestSections is PCR 11, worked out here.
func TestSections(t *testing.T) {
	t.Parallel()
	want := func(sections ...string) string {
		value := make([]byte, 48)
		extend := func(data []byte) {
			sum := sha512.Sum384(data)
			sum = sha512.Sum384(append(value, sum[:]...))
			value = sum[:]
		}
		for i := 0; i < len(sections); i += 2 {
			extend([]byte(sections[i] + "\x00"))
			extend([]byte(sections[i+1]))
		}
		return hex.EncodeToString(value)
	}
	kernel := string(executable(section{".text", []byte("a kernel")}))
	base := []string{".linux", kernel, ".osrel", "ID=test\n", ".cmdline", "ro", ".initrd", "an initramfs"}
	more := []section{{".uname", []byte("6.1")}, {".ucode", []byte("microcode")}, {".sbat", []byte("sbat")}, {".pcrsig", []byte("{}")}, {".pcrpkey", []byte("a key")}}
	for version, sections := range map[string][]string{
		"252": append(base[:8:8], ".pcrpkey", "a key"),
		"255": append(base[:8:8], ".uname", "6.1", ".sbat", "sbat", ".pcrpkey", "a key"),
		"257": append(base[:8:8], ".ucode", "microcode", ".uname", "6.1", ".sbat", "sbat", ".pcrpkey", "a key"),
	} {
		p, err := measure.Predict([]*measure.Image{image(t, "a", uki(version, more...))}, nil)
		if err != nil || p.PCRs["11"] != want(sections...) {
			t.Errorf("stub %s: PCR 11 = %s, %v, want %s", version, p.PCRs["11"], err, want(sections...))
		}
	}
}

// TestOptions: systemd-boot before 255 passes the built-in command line on, and both
// measure it.
func TestOptions(t *testing.T) {
	t.Parallel()
	zero := strings.Repeat("0", 96)
	const twice = "e172562a0f2bfe54f002ab6d5c32635a597ea6bf46b6b12dbce34cbb4fdf1d1a7f5709f4b1e1ce164db909db739582d8" // as QEMU's firmware and 252 have it
	line := []byte("console=ttyS0 panic=-1 no_timer_check root=LABEL=unlock-root rw loglevel=7 rd.unlock=0 ")
	of := func(boot, stub string) string {
		t.Helper()
		images := []*measure.Image{image(t, "b", executable(section{".text", nil}, sdmagic("systemd-boot "+boot))),
			image(t, "u", executable(sdmagic("systemd-stub "+stub), section{".cmdline", line}, section{".linux", executable()}))}
		p, err := measure.Predict(images, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p.PCRs["12"]
	}
	for name, row := range map[string]struct{ got, want string }{
		"252 and 252": {of("252.39-1~deb12u2", "252.39-1~deb12u2"), twice},
		"254 and 257": {of("254", "257"), twice},
		"255 and 257": {of("255", "257"), zero},
		"257 and 252": {of("257.13", "252"), zero},
	} {
		if row.got != row.want {
			t.Errorf("systemd-boot and stub %s: PCR 12 = %s, want %s", name, row.got, row.want)
		}
	}
}

// TestARM64: an image for Graviton is measured in the same way.
func TestARM64(t *testing.T) {
	t.Parallel()
	data := uki("257")
	amd64, err := measure.Predict([]*measure.Image{image(t, "a", bytes.Clone(data))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint16(data[68:], 0xaa64) // the machine that it is for
	arm64, err := measure.Predict([]*measure.Image{image(t, "a", data)}, nil)
	if err != nil || arm64.PCRs["4"] == amd64.PCRs["4"] || arm64.PCRs["11"] != amd64.PCRs["11"] {
		t.Errorf("arm64: %v, %v; amd64: %v", arm64.PCRs, err, amd64.PCRs)
	}
}

func TestUnpredictable(t *testing.T) {
	t.Parallel()
	boot := executable(section{".text", nil}, sdmagic("systemd-boot 257"))
	for name, row := range map[string]struct {
		images [][]byte
		want   string
	}{
		"GRUB":                     {[][]byte{executable(section{"mods", []byte("x")})}, "is GRUB"},
		"GRUB before an image":     {[][]byte{executable(section{"mods", []byte("x")}), uki("257")}, "is GRUB"},
		"shim before an image":     {[][]byte{executable(section{".vendor_", []byte("x")}), uki("257")}, "(shim), which starts another, is not systemd-boot"},
		"systemd-boot alone":       {[][]byte{boot}, "is no unified kernel image"},
		"a stub without version":   {[][]byte{executable(section{".linux", []byte("x")})}, "a stub without version"},
		"a stub of another maker":  {[][]byte{executable(section{".linux", []byte("x")}, sdmagic("other-stub 1"))}, "a stub without version"},
		"an old stub":              {[][]byte{uki("251")}, "252 is the oldest one known here"},
		"profiles":                 {[][]byte{uki("257", section{".profile", []byte("ID=a")})}, "a section .profile, of which it chooses"},
		"two command lines":        {[][]byte{uki("257", section{".cmdline", []byte("x")})}, "has 2 sections .cmdline"},
		"two images":               {[][]byte{uki("257"), uki("257")}, "which starts another, is not systemd-boot"},
		"nothing":                  {nil, "there is no program"},
		"systemd-boot, then image": {[][]byte{boot, uki("257")}, ""},
	} {
		var images []*measure.Image
		for _, data := range row.images {
			images = append(images, image(t, "x.efi", data))
		}
		_, err := measure.Predict(images, nil)
		if row.want == "" && err != nil || row.want != "" && (!errors.Is(err, measure.ErrUnpredictable) || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", name, err, row.want)
		}
	}
}

// signer makes a key and its certificate, in files and in DER.
func signer(t *testing.T) (files [2]string, der []byte) {
	t.Helper()
	dir := t.TempDir()
	files = [2]string{filepath.Join(dir, "key"), filepath.Join(dir, "cert")}
	tool(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2", "-keyout", files[0], "-out", files[1])
	tool(t, "openssl", "x509", "-in", files[1], "-outform", "DER", "-out", files[1]+".der")
	der, err := os.ReadFile(files[1] + ".der")
	if err != nil {
		t.Fatal(err)
	}
	return files, der
}

func tool(t *testing.T, command ...string) {
	t.Helper()
	program.Need(t, command[0])
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

// sign has sbsign sign a program.
func sign(t *testing.T, files [2]string, _ []byte, data []byte) []byte {
	t.Helper()
	in := filepath.Join(t.TempDir(), "in.efi")
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "sbsign", "--key", files[0], "--cert", files[1], "--output", in+".signed", in)
	signed, err := os.ReadFile(in + ".signed")
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// esl is an EFI signature list with one certificate.
func esl(der []byte) []byte {
	b := []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	for _, n := range []int{28 + 16 + len(der), 0, 16 + len(der)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	return append(append(b, "an owner of keys"...), der...)
}

// TestAuthenticode: a signature changes nothing of what is hashed, and sbsign's own hash
// is the same.
func TestAuthenticode(t *testing.T) {
	t.Parallel()
	files, cert := signer(t)
	plain := uki("257")
	signed := sign(t, files, cert, plain)
	a, b := image(t, "a", plain).Authenticode(sha512.New384()), image(t, "b", signed).Authenticode(sha512.New384())
	if !bytes.Equal(a, b) || bytes.Equal(plain, signed) {
		t.Errorf("the hash is %x, signed %x", a, b)
	}
	if theirs := image(t, "a", plain).Authenticode(sha256.New()); !bytes.Contains(signed, theirs) { // in what sbsign signs
		t.Errorf("sbsign did not sign %x", theirs)
	}
	changed := bytes.Clone(plain)
	changed[len(changed)-600] ^= 1
	if bytes.Equal(a, image(t, "c", changed).Authenticode(sha512.New384())) {
		t.Error("a changed program has the same hash")
	}
	other, _ := signer(t)
	_, err := measure.Predict([]*measure.Image{image(t, "a", sign(t, other, nil, plain))}, &measure.Variables{PK: esl(cert), KEK: esl(cert), DB: esl(cert)})
	if err == nil || !strings.Contains(err.Error(), "has no signature that db knows") {
		t.Errorf("signed by another: %v", err)
	}
}

// partition makes a FAT file system of files, place to content.
func partition(t *testing.T, bits string, files map[string][]byte) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "esp")
	size := map[string]int64{"12": 2 << 20, "16": 16 << 20, "32": 64 << 20}[bits]
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.vfat", "-F", bits, image)
	for place, content := range files {
		for i, c := range place {
			if c == '/' {
				_ = exec.Command("mmd", "-D", "s", "-i", image, "::"+place[:i]).Run() // it may be there
			}
		}
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "mcopy", "-i", image, file, "::"+place)
	}
	return image
}

func TestOpen(t *testing.T) {
	t.Parallel()
	boot, one := executable(section{".text", nil}, sdmagic("systemd-boot 257")), uki("257", section{".splash", bytes.Repeat([]byte("x"), 300000)})
	both := map[string][]byte{"EFI/BOOT/BOOTX64.EFI": boot, "EFI/Linux/debian-6.12.1-cloud-amd64.efi": one, "EFI/Linux/notes.txt": []byte("x")}
	files := func(more map[string][]byte) map[string][]byte {
		all := map[string][]byte{}
		for _, m := range []map[string][]byte{both, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	for name, row := range map[string]struct {
		bits  string
		files map[string][]byte
		want  string // the images' names, or the error
	}{
		"FAT32":          {"32", both, "EFI/BOOT/BOOTX64.EFI EFI/Linux/debian-6.12.1-cloud-amd64.efi"},
		"FAT16":          {"16", both, "EFI/BOOT/BOOTX64.EFI EFI/Linux/debian-6.12.1-cloud-amd64.efi"},
		"FAT12":          {"12", both, "EFI/BOOT/BOOTX64.EFI EFI/Linux/debian-6.12.1-cloud-amd64.efi"},
		"an image alone": {"32", map[string][]byte{"EFI/BOOT/bootaa64.efi": one}, "EFI/BOOT/BOOTAA64.EFI"},
		"two images":     {"32", files(map[string][]byte{"EFI/Linux/b.efi": one}), "of which systemd-boot chooses: b.efi, debian-6.12.1-cloud-amd64.efi"},
		"boot entries":   {"32", files(map[string][]byte{"loader/entries/a.conf": []byte("linux /x")}), "whose kernels are no unified images"},
		"a driver":       {"32", files(map[string][]byte{"EFI/systemd/drivers/somex64.efi": one}), "has drivers in EFI/systemd/drivers"},
		"nothing":        {"32", map[string][]byte{"EFI/debian/grubx64.efi": one}, "which a new machine starts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			image := partition(t, row.bits, row.files)
			disk := filepath.Join(t.TempDir(), "disk")
			if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 80<<20)); err != nil {
				t.Fatal(err)
			}
			program.Need(t, "sfdisk")
			cmd := exec.Command("sfdisk", "-q", disk)
			cmd.Stdin = strings.NewReader("label: gpt\nstart=2048, size=16384\nstart=20480, size=131072, type=uefi\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			tool(t, "dd", "status=none", "conv=notrunc", "bs=512", "seek=20480", "if="+image, "of="+disk)
			mounted := t.TempDir()
			tool(t, "mcopy", "-s", "-i", image, "::EFI", mounted)
			_ = exec.Command("mcopy", "-s", "-i", image, "::loader", mounted).Run() // only one has it
			for kind, file := range map[string]string{"partition": image, "disk": disk, "directory": mounted} {
				images, err := measure.Open(file)
				var names []string
				for _, i := range images {
					names = append(names, i.Name)
				}
				if got := strings.Join(names, " "); got != row.want && (err == nil || !strings.Contains(err.Error(), row.want)) {
					t.Errorf("%s: %q, %v, want %q", kind, got, err, row.want)
				}
				if err == nil {
					if p, err := measure.Predict(images, nil); err != nil || len(p.Images) != len(images) {
						t.Errorf("%s: %v", kind, err)
					}
				}
			}
		})
	}
}

// FuzzRead reads programs that anybody may have made.
func FuzzRead(f *testing.F) {
	f.Add(uki("257"))
	f.Add(executable())
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := measure.Read("x", data)
		if err != nil {
			return
		}
		i.Authenticode(sha512.New384())
		_, _ = measure.Predict([]*measure.Image{i}, nil)
		_, _ = measure.Predict([]*measure.Image{i}, &measure.Variables{})
	})
}

// FuzzReadLog reads event logs.
func FuzzReadLog(f *testing.F) {
	f.Add(eventLog())
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := measure.ReadLog(data)
		if err == nil {
			measure.Replay(events, 4)
		}
	})
}

// eventLog has two events of PCR 4, in two algorithms.
func eventLog() []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, 2)
	for _, v := range []uint16{4, 20, 12, 48} {
		spec = le.AppendUint16(spec, v)
	}
	spec = append(spec, 0)
	b := le.AppendUint32(make([]byte, 28), uint32(len(spec)))
	b = append(b, spec...)
	for _, text := range []string{"Calling EFI Application from Boot Option", "\x00\x00\x00\x00"} {
		kind := uint32(0x80000007)
		if text[0] == 0 {
			kind = 4
		}
		for _, v := range []uint32{4, kind, 2} {
			b = le.AppendUint32(b, v)
		}
		sum := sha512.Sum384([]byte(text))
		b = append(le.AppendUint16(b, 4), make([]byte, 20)...)
		b = append(le.AppendUint16(b, 12), sum[:]...)
		b = append(le.AppendUint32(b, uint32(len(text))), text...)
	}
	return b
}

// TestThis compares a machine's log with a prediction.
func TestThis(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	put := func(file string, content []byte) {
		file = filepath.Join(root, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, content, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("sys/kernel/security/tpm0/binary_bios_measurements", eventLog())
	events, err := measure.ReadLog(eventLog())
	if err != nil || len(events) != 2 {
		t.Fatal(events, err)
	}
	for n := range 24 {
		value := hex.EncodeToString(measure.Replay(events, n))
		if n == 13 {
			value = strings.Repeat("ab", 48)
		}
		put("sys/class/tpm/tpm0/pcr-sha384/"+string([]byte{'0' + byte(n/10), '0' + byte(n%10)}[btoi(n < 10):]), []byte(strings.ToUpper(value)+"\n"))
	}
	m, err := measure.This(root)
	if err != nil {
		t.Fatal(err)
	}
	p, err := measure.Predict([]*measure.Image{image(t, "a.efi", uki("258"))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	separator := sha512.Sum384(make([]byte, 4))
	m.Events = append(m.Events, measure.Event{PCR: 2, Digest: separator[:]}) // as each firmware does
	different := p.Compare(m)
	if len(different) == 0 || different[0].PCR != 4 || different[0].Number != 3 || different[0].Got != nil || different[0].Want.What != "a.efi" {
		t.Errorf("the differences: %+v", different)
	}
	if m.Later(4) || !m.Later(13) || m.SecureBoot() {
		t.Errorf("extended later: 4 %v, 13 %v; Secure Boot %v", m.Later(4), m.Later(13), m.SecureBoot())
	}
	for n := range eventLog() {
		if _, err := measure.ReadLog(eventLog()[:n]); err == nil && n != len(eventLog())-len("x") && n > 0 && !whole(n) {
			t.Errorf("%d bytes of a log: no error", n)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// whole reports whether an event ends after so many bytes.
func whole(n int) bool {
	log := eventLog()
	last := 12 + 22 + 50 + 4 + 4
	first := last - 4 + len("Calling EFI Application from Boot Option")
	return n == len(log)-last || n == len(log)-last-first
}
