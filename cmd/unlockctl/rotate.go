package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/enrollment"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

type rotateCmd struct {
	awsFlags
	keyFlags
	Device     []string `arg:"" optional:"" placeholder:"DEVICE" help:"LUKS2 volume; of a stripe, all its disks."`
	Sealed     string   `placeholder:"PLACE" help:"The passphrase is sealed there: s3://BUCKET/KEY, ssm:NAME or file:/PATH; without it, its ciphertext is in the LUKS header."`
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
	header := key.Source == config.SourceHeader
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
	set, err := enrollment.OpenSet(c.Device, c.DryRun)
	if err != nil {
		return sealed{}, err
	}
	defer set.Close()
	if !header {
		return c.replaceSealed(ctx, con, a, k, set)
	}
	t, ok, err := set.KMS()
	if err != nil {
		return sealed{}, err
	}
	if !ok {
		return sealed{}, usage(c.Device[0]+" has no data key in its header", "add one with unlockctl enroll, or name the sealed passphrase with --sealed")
	}
	p, err := pinned(a, k, set.UUID, t.Key)
	if err != nil {
		return sealed{}, err
	}
	if c.To != "" {
		return c.rewrapHeader(ctx, con, p, set)
	}
	return c.replaceDataKey(ctx, con, p, set)
}

// target looks the new key up. Boots that are not told of it beforehand would fail, so
// this refuses unless they are.
func (c *rotateCmd) target(ctx context.Context, con console, p pin) (string, error) {
	to, err := p.account.DescribeKey(ctx, c.To)
	if err != nil {
		return "", err
	}
	switch listed := c.Volume != "" && slices.Contains(p.key.KMSKeys, to.ARN); {
	case listed, c.Yes, len(p.key.KMSKeys) == 1 && p.key.KMSKeys[0] == to.ARN:
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
	p, err := pinned(a, k, "", "")
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
	s := sealed{Source: string(k.Source), KMSKey: to, Context: k.Context, Version: old.Version}
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

func (c *rotateCmd) rewrapHeader(ctx context.Context, con console, p pin, set *enrollment.Set) (sealed, error) {
	to, err := c.target(ctx, con, p)
	if err != nil {
		return sealed{}, err
	}
	s := sealed{Source: config.SourceHeader, KMSKey: to, Context: p.key.Context}
	for _, d := range set.Disks { // those that say they are done are asked about, for they may lie
		if t, ok, err := d.Header().KMS(); err != nil {
			return s, err
		} else if ok && t.Key == to {
			if _, err := p.account.ReEncrypt(ctx, to, to, t.Ciphertext, p.context); err != nil {
				return s, fmt.Errorf("%s: %w", d.Path, err)
			}
		}
	}
	n, err := set.Rewrap(ctx, to, func(ctx context.Context, t luks.KMSToken) (keys.Blob, error) {
		b, _, err := p.reEncrypt(ctx, to, t.Ciphertext)
		return b, err
	})
	switch {
	case err != nil:
		return s, err
	case n == 0:
		con.note("the volume's data key is under %s already: nothing was changed", to)
	default:
		con.note("%s under %s; the volume opens at boot if its kms_key names that", plural(n, "token"), to)
	}
	return s, nil
}

// replaceDataKey has KMS make a new data key.
func (c *rotateCmd) replaceDataKey(ctx context.Context, con console, p pin, set *enrollment.Set) (sealed, error) {
	s := sealed{Source: config.SourceHeader, KMSKey: p.key.KMSKeys[0], Context: p.key.Context}
	err := set.Rotate(ctx, enrollment.Rotation{
		New: func(ctx context.Context) (*secret.Bytes, keys.Blob, error) {
			data, b, err := p.account.Generate(ctx, p.key.KMSKeys[0], p.context)
			if err != nil {
				return nil, b, err
			}
			defer data.Wipe()
			return keys.Text(data), b, nil
		},
		Decrypt: func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error) {
			return p.passphrase(ctx, con, ciphertext)
		},
		Log: con.note,
	})
	return s, err
}

// replaceSealed makes a new passphrase and seals it in the old one's place.
func (c *rotateCmd) replaceSealed(ctx context.Context, con console, a *account.Account, k config.Key, set *enrollment.Set) (sealed, error) {
	p, err := pinned(a, k, "", "")
	if err != nil {
		return sealed{}, err
	}
	place, err := a.Place(k.Source, k.KMSKeys[0])
	if err != nil {
		return sealed{}, err
	}
	object, err := place.Read(ctx)
	if err != nil {
		return sealed{}, err
	}
	s := sealed{Source: string(k.Source), KMSKey: k.KMSKeys[0], Context: k.Context, Version: object.Version}
	err = set.Rotate(ctx, enrollment.Rotation{
		New: func(ctx context.Context) (*secret.Bytes, keys.Blob, error) {
			passphrase := keys.Random()
			b, err := a.Encrypt(ctx, k.KMSKeys[0], passphrase, k.Context)
			if err != nil {
				passphrase.Wipe()
			}
			return passphrase, b, err
		},
		Decrypt: func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error) {
			return p.passphrase(ctx, con, ciphertext)
		},
		Object: object.Ciphertext,
		Source: string(k.Source),
		Publish: func(ctx context.Context, b keys.Blob) error {
			if c.DryRun {
				return nil
			}
			now, kept, err := place.Replace(ctx, object, b.Ciphertext)
			s.Version, s.Kept = now.Version, kept
			if err == nil {
				con.note("%s: holds the new passphrase", k.Source)
			}
			return err
		},
		Log: con.note,
	})
	return s, err
}

// note reports progress.
func (c console) note(format string, args ...any) {
	fmt.Fprintln(c.err, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
