package luks_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	luksgo "github.com/anatol/luks.go"

	"unlock/internal/luks"
	"unlock/internal/secret"
	"unlock/test/program"
)

const testUUID = "0d5bd3a4-9d41-4f9c-8c6e-3f2a1b7c9e55"

func pass(t *testing.T, s string) *secret.Bytes {
	p := secret.Take([]byte(s))
	t.Cleanup(p.Wipe)
	return p
}

// image returns a new file of size bytes, opened for reading and writing.
func image(t *testing.T, size int64) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

// cryptsetup runs it with stdin and fails the test if it fails.
func cryptsetup(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	out, err := tryCryptsetup(t, stdin, args...)
	if err != nil {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryCryptsetup(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	program.Need(t, "cryptsetup")
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func TestFormatHereOpenThere(t *testing.T) {
	t.Parallel()
	f := image(t, 32<<20)
	h, err := luks.Format(f, 32<<20, pass(t, "open sesame"), luks.FormatOptions{
		UUID: testUUID, Label: "secretfs", Subsystem: "unlock", SectorSize: 4096,
		Flags: []string{"allow-discards", "no-read-workqueue", "no-write-workqueue"},
		KMS:   &luks.KMSToken{Version: 1, Ciphertext: []byte{1, 2, 3, 0xff}, Key: "arn:aws:kms:eu-west-1:111122223333:key/x", Region: "eu-west-1", Context: map[string]string{"a": "b"}},
		Set:   &luks.SetToken{Version: 1, UUID: testUUID, Index: 0, Count: 1, State: luks.StateForming},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Open(t.Context(), pass(t, "open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wipe()
	if _, err := h.Open(t.Context(), pass(t, "open barley")); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("Open with a wrong passphrase = %v, want ErrPassphrase", err)
	}
	if !bytes.Equal(p.Key.Bytes(), luksgoKey(t, f.Name(), "open sesame")) || !bytes.Equal(p.Key.Bytes(), dumpKey(t, f.Name(), "open sesame")) {
		t.Error("luks.go or cryptsetup finds another key")
	}
	cryptsetup(t, "open sesame", "open", "--test-passphrase", "--key-file=-", f.Name())
	dump := cryptsetup(t, "", "luksDump", f.Name())
	for _, want := range []string{
		"Label:         	secretfs", "Subsystem:     	unlock", "allow-discards no-read-workqueue no-write-workqueue",
		"offset: 16777216 [bytes]", "sector: 4096 [bytes]", "0: aws-kms\n	Keyslot:    0", "1: unlock-set",
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("luksDump has no %q:\n%s", want, dump)
		}
	}
	s, ok, err := h.Set()
	if err != nil || !ok {
		t.Fatalf("Set() = %v, %v, %v", s, ok, err)
	}
	s.State = luks.StateReady
	if err := h.PutSet(f, s); err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"unlock-set","v":1,"uuid":"` + testUUID + `","index":0,"count":1,"state":"ready","keyslots":[]}`
	if got := cryptsetup(t, "", "token", "export", "--token-id", "1", f.Name()); got != want {
		t.Errorf("token export = %s, want %s", got, want)
	}
	cryptsetup(t, "open sesame", "open", "--test-passphrase", "--key-file=-", f.Name())
}

func TestFormatThereOpenHere(t *testing.T) {
	t.Parallel()
	pbkdf2 := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	argon2 := func(kind string) []string {
		return []string{"--pbkdf", kind, "--pbkdf-memory", "1024", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "2"}
	}
	tests := []struct {
		name    string
		version int
		key     int // bytes
		sector  int
		args    []string
	}{
		{"LUKS1", 1, 64, 512, []string{"--type", "luks1", "--pbkdf-force-iterations", "1000"}},
		{"LUKS1 256-bit sha1", 1, 32, 512, []string{"--type", "luks1", "--pbkdf-force-iterations", "1000", "--key-size", "256", "--hash", "sha1"}},
		{"LUKS1 sha512", 1, 64, 512, []string{"--type", "luks1", "--pbkdf-force-iterations", "1000", "--hash", "sha512"}},
		{"pbkdf2", 2, 64, 512, append(pbkdf2, "--sector-size", "512")},
		{"pbkdf2 sha1", 2, 64, 4096, append(pbkdf2, "--hash", "sha1", "--sector-size", "4096")},
		{"pbkdf2 sha512", 2, 64, 4096, append(pbkdf2, "--hash", "sha512")},
		{"256-bit key", 2, 32, 4096, append(pbkdf2, "--key-size", "256")},
		{"argon2i", 2, 64, 4096, argon2("argon2i")},
		{"argon2id", 2, 64, 4096, argon2("argon2id")},
		{"16 KiB metadata", 2, 64, 4096, append(pbkdf2, "--luks2-metadata-size", "16k")},
		{"64 KiB metadata", 2, 64, 4096, append(pbkdf2, "--luks2-metadata-size", "64k", "--luks2-keyslots-size", "512k")},
		{"1 MiB metadata", 2, 64, 4096, append(pbkdf2, "--luks2-metadata-size", "1m")},
		{"4 MiB metadata", 2, 64, 4096, append(pbkdf2, "--luks2-metadata-size", "4m")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := image(t, 48<<20)
			args := append([]string{"luksFormat", "-q", "--uuid", testUUID}, tt.args...)
			cryptsetup(t, "open sesame", append(args, f.Name(), "-")...)
			want := dumpKey(t, f.Name(), "open sesame")
			h, err := luks.Read(f, 48<<20, luks.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if h.Version() != tt.version || h.UUID() != testUUID || len(h.Notes()) != 0 {
				t.Errorf("Read = version %d, UUID %s, notes %q", h.Version(), h.UUID(), h.Notes())
			}
			p, err := h.Open(t.Context(), pass(t, "open sesame"))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Wipe()
			if !bytes.Equal(p.Key.Bytes(), want) || p.Key.Len() != tt.key {
				t.Errorf("key of %d bytes is not the one of %d that cryptsetup dumps", p.Key.Len(), len(want))
			}
			if !bytes.Equal(p.Key.Bytes(), luksgoKey(t, f.Name(), "open sesame")) {
				t.Error("luks.go finds another key")
			}
			if p.SectorSize != tt.sector || p.Offset+p.Size != 48<<20 || p.Cipher != "aes-xts-plain64" {
				t.Errorf("payload %d+%d, sectors of %d, %s", p.Offset, p.Size, p.SectorSize, p.Cipher)
			}
			if _, err := h.Open(t.Context(), pass(t, "open barley")); !errors.Is(err, luks.ErrPassphrase) {
				t.Errorf("Open with a wrong passphrase = %v, want ErrPassphrase", err)
			}
		})
	}
}

// TestOneCopyLeft: with either header lost, at every size that headers may have,
// the other one serves.
func TestOneCopyLeft(t *testing.T) {
	t.Parallel()
	f := image(t, 24<<20)
	for size := int64(16 << 10); size <= 4<<20; size *= 2 {
		cryptsetup(t, "open sesame", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--luks2-keyslots-size", "512k",
			"--luks2-metadata-size", fmt.Sprint(size), f.Name(), "-")
		want := dumpKey(t, f.Name(), "open sesame")
		for _, at := range []int64{0, size} {
			good := make([]byte, 4096)
			if _, err := f.ReadAt(good, at); err != nil {
				t.Fatal(err)
			}
			for _, bad := range [][]byte{make([]byte, 4096), bytes.Repeat([]byte{0xa5}, 4096), []byte("XXXX"), append(bytes.Clone(good[:4095]), 1)} {
				if _, err := f.WriteAt(bad, at); err != nil {
					t.Fatal(err)
				}
				h, err := luks.Read(f, 24<<20, luks.Limits{})
				if err != nil {
					t.Fatalf("%d bytes, without the copy at %d: %v", size, at, err)
				}
				if n := h.Notes(); len(n) != 1 || !strings.Contains(n[0], "LUKS2 header is damaged") {
					t.Errorf("%d bytes, without the copy at %d: notes %q", size, at, n)
				}
				p, err := h.Open(t.Context(), pass(t, "open sesame"))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p.Key.Bytes(), want) {
					t.Error("another key")
				}
				p.Wipe()
				if _, err := f.WriteAt(good, at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// luksgoKey returns the volume key as anatol/luks.go knows it.
func luksgoKey(t *testing.T, path, passphrase string) []byte {
	t.Helper()
	dev, err := luksgo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	v, err := dev.UnsealVolume(0, []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	return reflect.ValueOf(v).Elem().FieldByName("key").Bytes()
}

// dumpKey returns the volume key as cryptsetup knows it.
func dumpKey(t *testing.T, path, passphrase string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	cryptsetup(t, passphrase, "luksDump", "-q", "--dump-volume-key", "--volume-key-file", file, "--key-file=-", path)
	key, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
