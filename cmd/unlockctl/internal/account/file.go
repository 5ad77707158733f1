package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// filePlace is a file of this machine. A ciphertext is no secret: mode 0644.
type filePlace string

func (p filePlace) Read(context.Context) (Object, error) {
	data, err := os.ReadFile(string(p))
	if err != nil {
		return Object{}, fmt.Errorf("reading the ciphertext: %w", err)
	}
	return checked(Object{Ciphertext: data}, string(p))
}

func (p filePlace) Create(_ context.Context, ciphertext []byte) (Object, error) {
	err := p.write(ciphertext, os.Link) // which does not replace
	if errors.Is(err, fs.ErrExist) {
		return Object{}, &Error{Op: "writing " + string(p), Err: ErrExists}
	}
	return Object{Ciphertext: ciphertext}, err
}

func (p filePlace) Replace(ctx context.Context, old Object, ciphertext []byte) (Object, string, error) {
	now, err := p.Read(ctx)
	if err != nil {
		return Object{}, "", err
	}
	if !bytes.Equal(now.Ciphertext, old.Ciphertext) {
		return Object{}, "", fmt.Errorf("writing %s: somebody else wrote it at the same moment", p)
	}
	kept := string(p) + ".old-" + stamp()
	if err := os.Link(string(p), kept); err != nil {
		return Object{}, "", fmt.Errorf("keeping the old ciphertext: %w", err)
	}
	return Object{Ciphertext: ciphertext}, kept, p.write(ciphertext, os.Rename)
}

// write writes a file beside p, makes it durable, and gives it p's name.
func (p filePlace) write(ciphertext []byte, name func(from, to string) error) error {
	dir := filepath.Dir(string(p))
	f, err := os.CreateTemp(dir, ".sealed-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", p, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_, err = f.Write(ciphertext)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync()); err != nil {
		return fmt.Errorf("writing %s: %w", p, err)
	}
	if err := name(f.Name(), string(p)); err != nil {
		return fmt.Errorf("writing %s: %w", p, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing %s: %w", p, err)
	}
	defer d.Close()
	return d.Sync()
}
