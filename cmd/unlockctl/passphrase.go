package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"unlock/internal/secret"
)

// maxPassphrase is what KMS encrypts at most, in bytes.
const maxPassphrase = 4096

// readSecret returns the content of a file, of standard input for "-", byte for byte
// as cryptsetup --key-file takes it; without a file it asks on the terminal. The
// caller wipes it.
func (c console) readSecret(ctx context.Context, file, question string) (*secret.Bytes, error) {
	switch file {
	case "":
		return c.ask(ctx, question)
	case "-":
		return readAll(ctx, c.in, "standard input")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer f.Close()
	return readAll(ctx, f, file)
}

// readAll reads until the end, or that of ctx: a pipe or a terminal may be silent.
func readAll(ctx context.Context, r io.Reader, name string) (*secret.Bytes, error) {
	s := secret.New(maxPassphrase + 1)
	var n int
	var err error
	read := make(chan struct{})
	go func() {
		defer close(read)
		n, err = io.ReadFull(r, s.Bytes())
	}()
	select {
	case <-read:
	case <-ctx.Done(): // the program is about to end, and s with it
		return nil, context.Cause(ctx)
	}
	switch {
	case err == nil:
		err = fmt.Errorf("longer than %d bytes", maxPassphrase)
	case errors.Is(err, io.EOF):
		err = errors.New("it is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		s.Truncate(n)
		return s, nil
	}
	s.Wipe()
	return nil, fmt.Errorf("reading the passphrase from %s: %w", name, err)
}
