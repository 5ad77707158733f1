//go:build !linux

package main

import (
	"context"
	"os"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/config"
	"unlock/internal/secret"
)

// machine has no commands here: EC2 instances that unlock opens volumes of run Linux.
type machine struct{}

var errOtherSystem = usage("volumes are on Linux machines", "run it there; here a ciphertext can be sealed, and put under another KMS key: rotate --sealed PLACE --to KEY")

func (c *rotateCmd) devices(context.Context, console, *account.Account, config.Key, bool) (sealed, error) {
	return sealed{}, errOtherSystem
}

func (c console) ask(context.Context, string) (*secret.Bytes, error) { return nil, errOtherSystem }

func isTerminal(f *os.File) bool {
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0
}

// Nothing is known of other systems that would help.
func overwritesGarbage() error { return nil }
func overwriteGarbage()        {}
