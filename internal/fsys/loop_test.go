package fsys

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAttach(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	file := filepath.Join(root, "var/secretfs")
	if _, err := Attach(root, "/var/secretfs", 1<<20, false); !errors.Is(err, ErrNoFile) {
		t.Fatalf("Attach of no file = %v, want ErrNoFile", err)
	}
	l, err := Attach(root, "/var/secretfs", 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("written through the loop device "), 128)
	if err := os.WriteFile(l.Path, want, 0); err != nil {
		t.Error(err)
	}
	if err := l.Detach(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(got, want) || len(got) != 1<<20 || l.Size != 1<<20 {
		t.Errorf("file of %d bytes, device of %d, %v, want 1 MiB with what was written", len(got), l.Size, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if _, err := Attach(root, "/var/secretfs", 2<<20, true); err == nil || !strings.Contains(err.Error(), "holds data") {
		t.Errorf("Attach of a shorter file with data = %v, want a refusal", err)
	}
}

func TestAttachCompletes(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "f"), make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Attach(root, "/f", 1<<20, true)
	if err != nil || l.Size != 1<<20 {
		t.Fatalf("Attach = %+v, %v, want 1 MiB", l, err)
	}
	if err := l.Detach(); err != nil {
		t.Error(err)
	}
}

func TestAttachOutside(t *testing.T) {
	root, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(root, "/link", 4096, true); err == nil {
		t.Error("Attach followed a link out of the root")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may set up a loop device")
	}
}
