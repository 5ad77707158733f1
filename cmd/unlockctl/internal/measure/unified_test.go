package measure_test

import (
	"bytes"
	"crypto/sha512"
	"debug/pe"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"unlock/cmd/unlockctl/internal/measure"
	"unlock/test/lab"
	"unlock/test/vm"
)

// TestUnified holds what is predicted of Debian's own stubs and kernels, of both
// architectures, against programs that others wrote: osslsigncode hashes programs, and
// systemd-measure of Debian 12 sections.
func TestUnified(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("fetches Debian's kernels")
	}
	key, _ := signer(t)
	for _, row := range []struct {
		suite, architecture string
		more                string // a section that the stub measures, and this machine's systemd-measure does not know
	}{
		{"bookworm", "amd64", ""},
		{"trixie", "amd64", ".sbat"},
		{"trixie", "arm64", ".sbat"}, // Debian 12's stub for arm64 says no version
	} {
		t.Run(row.suite+" "+row.architecture, func(t *testing.T) {
			t.Parallel()
			loader, err := vm.Loaders(t.Context(), row.suite, row.architecture)
			if err != nil {
				t.Fatal(err)
			}
			kernel, err := vm.KernelOf(t.Context(), row.suite, row.architecture)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			first := whole8(t, loader.Boot)
			osrel, cmdline, initrd, uki := filepath.Join(dir, "osrel"), filepath.Join(dir, "cmdline"), filepath.Join(dir, "initrd"), filepath.Join(dir, "uki.efi")
			if err := errors.Join(
				os.WriteFile(osrel, []byte("ID=test\nVERSION_ID=1\n"), 0o600),
				os.WriteFile(cmdline, []byte("ro nohibernate"), 0o600),
				os.WriteFile(initrd, bytes.Repeat([]byte("an initramfs "), 5000), 0o600),
				lab.Unify(loader.Stub, uki, lab.Part{Section: ".osrel", File: osrel}, lab.Part{Section: ".cmdline", File: cmdline},
					lab.Part{Section: ".initrd", File: initrd}, lab.Part{Section: ".linux", File: kernel}),
			); err != nil {
				t.Fatal(err)
			}
			pcr11 := systemdMeasure(t, "--linux="+kernel, "--osrel="+osrel, "--cmdline="+cmdline, "--initrd="+initrd)
			if row.more != "" {
				pcr11 = extend(pcr11, append([]byte(row.more), 0))
				pcr11 = extend(pcr11, sectionOf(t, loader.Stub, row.more))
			}
			within, unified, boot := authenticode(t, key, kernel), authenticode(t, key, uki), authenticode(t, key, first)
			for name, row := range map[string]struct {
				files   []string
				started [][]byte
			}{
				"alone":        {[]string{uki}, [][]byte{unified, within}},
				"systemd-boot": {[]string{first, uki}, [][]byte{boot, unified, within}},
			} {
				images, err := measure.Open(row.files...)
				if err != nil {
					t.Fatal(err)
				}
				p, err := measure.Predict(images, nil)
				if err != nil {
					t.Fatal(err)
				}
				if want := pcr4(row.started...); p.PCRs["4"] != want {
					t.Errorf("%s: PCR 4 = %s, osslsigncode's hashes make %s", name, p.PCRs["4"], want)
				}
				if want := hex.EncodeToString(pcr11); p.PCRs["11"] != want {
					t.Errorf("%s: PCR 11 = %s, systemd-measure says %s", name, p.PCRs["11"], want)
				}
			}
		})
	}
}

// pcr4 is that of a machine that starts programs with these hashes.
func pcr4(started ...[]byte) string {
	value := extend(make([]byte, sha512.Size384), []byte("Calling EFI Application from Boot Option"))
	value = extend(value, make([]byte, 4))
	for _, digest := range started {
		sum := sha512.Sum384(append(value, digest...))
		value = sum[:]
	}
	return hex.EncodeToString(value)
}

// extend measures data.
func extend(value, data []byte) []byte {
	digest := sha512.Sum384(data)
	sum := sha512.Sum384(append(value[:len(value):len(value)], digest[:]...))
	return sum[:]
}

// sectionOf is the content of a program's section.
func sectionOf(t *testing.T, file, name string) []byte {
	t.Helper()
	f, err := pe.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := f.Section(name)
	if s == nil {
		t.Fatalf("%s has no section %s", file, name)
	}
	content, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	return content[:min(len(content), int(s.VirtualSize))]
}

// whole8 copies a program to a file of a multiple of 8 bytes: who signs another fills it up
// first, and hashes that.
func whole8(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(to, append(b, make([]byte, -len(b)&7)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return to
}

// authenticode is a program's hash by osslsigncode, which signs it.
func authenticode(t *testing.T, key [2]string, file string) []byte {
	t.Helper()
	signed := filepath.Join(t.TempDir(), "signed")
	tool(t, "osslsigncode", "sign", "-h", "sha384", "-key", key[0], "-certs", key[1], "-in", file, "-out", signed)
	b, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	// DigestInfo: id-sha384 with NULL, then the digest. The signature is the file's end; kernels
	// have the same bytes in them.
	const info = "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30"
	at := bytes.LastIndex(b, []byte(info)) + len(info)
	if at < len(info) || len(b)-at < sha512.Size384 {
		t.Fatalf("the signature of %s has no digest", file)
	}
	return b[at : at+sha512.Size384]
}

var sha384Of11 = regexp.MustCompile(`(?m)^11:sha384=([0-9a-f]{96})$`)

// systemdMeasure is PCR 11 by systemd's own program, before systemd adds to it.
func systemdMeasure(t *testing.T, sections ...string) []byte {
	t.Helper()
	out, err := exec.Command("/lib/systemd/systemd-measure", append([]string{"calculate", "--bank=sha384", "--phase=:"}, sections...)...).Output()
	m := sha384Of11.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("systemd-measure: %v\n%s", err, out)
	}
	value, err := hex.DecodeString(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return value
}
