package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

type rotateCmd struct {
	awsFlags
	keyFlags
	Device     []string `arg:"" optional:"" placeholder:"DEVICE" help:"LUKS2 volume; of a stripe, all its disks."`
	Sealed     string   `placeholder:"PLACE" help:"The passphrase is sealed there: ${places}; without it, its ciphertext is in the LUKS header."`
	To         string   `placeholder:"KEY" help:"Encrypt under this KMS key from now on; the passphrase stays, and does not leave KMS. In two steps: first every configuration and image gets kms_key = [OLD, NEW], then this."`
	Passphrase bool     `help:"Replace the passphrase, and its keyslot on all devices."`
	Yes        bool     `help:"Go on with --to although the configuration does not say that instances take the new key."`
	DryRun     bool     `help:"Change copies of the LUKS headers in memory only, and publish nothing; KMS is asked all the same."`
	JSON       bool     `help:"Print JSON."`
}

// Run rotates. Interrupted at any point, one of the two keys opens, and the same
// command again finishes.
func (c *rotateCmd) Run(ctx context.Context, con console) error {
	key, cfg, err := c.key(c.Sealed)
	if err != nil {
		return err
	}
	header := key.Source.Kind == source.Header
	switch {
	case c.Passphrase == (c.To != ""):
		return usage("either --to KEY or --passphrase", "--to replaces the KMS key, --passphrase what it protects")
	case len(c.Device) == 0 && (c.Passphrase || header):
		return usage("no DEVICE", "name the volume's disks, or with --sealed PLACE a sealed passphrase")
	case len(c.Device) > 0 && c.To != "" && !header:
		return usage("a sealed passphrase that stays needs no change on devices", "leave DEVICE away")
	}
	a, err := c.account(ctx, cfg)
	if err != nil {
		return err
	}
	defer a.Close()
	if c.DryRun {
		con.err = &prefixed{w: con.err, prefix: "dry run: "}
	}
	r, err := c.rotate(ctx, con, a, key, header)
	if err != nil && ctx.Err() != nil && !c.DryRun {
		con.note("what is published opens the volume; the same command again finishes")
	}
	if err != nil {
		return err
	}
	if c.DryRun {
		con.note("nothing was written")
	}
	if c.JSON || !header {
		return con.sealed(r, c.JSON)
	}
	return nil
}

func (c *rotateCmd) rotate(ctx context.Context, con console, a *account.Account, k config.Key, header bool) (sealed, error) {
	if c.To != "" && !header {
		return c.rewrapSealed(ctx, con, a, k)
	}
	return c.devices(ctx, con, a, k, header)
}

// target looks the new key up. Boots that are not told of it beforehand would fail, so
// this refuses unless they are.
func (c *rotateCmd) target(ctx context.Context, con console, p pin) (string, error) {
	to, err := p.account.DescribeKey(ctx, c.To)
	if err != nil {
		return "", err
	}
	is := func(key arn.ARN) bool { return key.String() == to.ARN }
	switch listed := c.Volume != "" && slices.ContainsFunc(p.key.KMSKeys, is); {
	case listed, c.Yes, len(p.key.KMSKeys) == 1 && is(p.key.KMSKeys[0]):
	case c.DryRun:
		con.note("instances whose kms_key does not list %s would not boot", to.ARN)
	default:
		return "", usage("instances whose kms_key does not list "+to.ARN+" would not boot any more",
			"first give every configuration and image both keys, kms_key = [OLD, NEW]; then rotate with --volume NAME, which looks it up, or with --yes")
	}
	return to.ARN, nil
}

// rewrapSealed replaces a ciphertext by one under another key.
func (c *rotateCmd) rewrapSealed(ctx context.Context, con console, a *account.Account, k config.Key) (sealed, error) {
	p, err := c.pinned(ctx, con, a, k, "", "")
	if err != nil {
		return sealed{}, err
	}
	to, err := c.target(ctx, con, p)
	if err != nil {
		return sealed{}, err
	}
	place, err := a.Place(k.Source, to)
	if err != nil {
		return sealed{}, err
	}
	old, err := place.Read(ctx)
	if err != nil {
		return sealed{}, err
	}
	b, from, err := p.reEncrypt(ctx, to, old.Ciphertext)
	if err != nil {
		return sealed{}, err
	}
	s := sealed{Source: k.Source.String(), KMSKey: to, Context: k.Context, Version: old.Version}
	if from == to {
		con.note("%s is under %s already: nothing was changed", k.Source, to)
		return s, nil
	}
	if c.DryRun {
		con.note("%s would be put from %s under %s", k.Source, from, to)
		return s, nil
	}
	now, kept, err := place.Replace(ctx, old, b.Ciphertext)
	if err != nil {
		return sealed{}, err
	}
	s.Version, s.Kept = now.Version, kept
	con.note("instances boot with it if their kms_key names %s; once all do, %s can be taken from the list", to, from)
	return s, nil
}

// note reports progress.
func (c console) note(format string, args ...any) {
	fmt.Fprintln(c.err, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
