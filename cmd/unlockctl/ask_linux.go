package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"unlock/cmd/unlockctl/internal/recovery"
	"unlock/internal/hint"
	"unlock/internal/hint/plain"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

// ask asks on the terminal, without echo. A recovery key may be typed in any case
// and with or without dashes; slips are reported at once.
func (c console) ask(ctx context.Context, question string) (*secret.Bytes, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, usage("no passphrase, and no terminal to ask on", "give --key-file FILE, or --key-file=- for standard input")
	}
	defer tty.Close()
	for {
		typed, err := secret.Ask(ctx, tty, plain.Text(question))
		if err != nil {
			return nil, fmt.Errorf("reading the passphrase: %w", err)
		}
		key, err := recovery.Parse(typed)
		if errors.Is(err, recovery.ErrNoKey) {
			return typed, nil
		}
		typed.Wipe()
		if err == nil {
			return key, nil
		}
		fmt.Fprintln(tty, err)
	}
}

// wrongKey gives a passphrase that does not open a volume the advice for one that was
// typed or came from a file; that of the error is about KMS.
func wrongKey(err error, given *secret.Bytes) error {
	if !errors.Is(err, luks.ErrPassphrase) {
		return err
	}
	if b := given.Bytes(); len(b) > 0 && b[len(b)-1] == '\n' {
		return hint.With(err, "what was given ends with a newline, which counts: printf makes a file without one")
	}
	return hint.With(err, "see which keyslots there are with unlockctl list; one of priority ignore is not tried")
}
