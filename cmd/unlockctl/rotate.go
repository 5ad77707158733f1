package main

import (
	"context"
	"errors"
	"fmt"
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
	To         string   `placeholder:"KEY" help:"Encrypt under this KMS key from now on; the passphrase stays, and does not leave KMS."`
	Passphrase bool     `help:"Replace the passphrase, and its keyslot on all devices."`
	DryRun     bool     `help:"Change copies of the LUKS headers in memory only; KMS is asked all the same."`
	JSON       bool     `help:"Print JSON (with --sealed)."`
}

// Run rotates. Interrupted at any point, one of the two keys opens, and the same
// command again goes on.
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
	case c.DryRun && !header:
		return usage("--dry-run is for keys in LUKS headers", "")
	}
	a, err := c.account(ctx, cfg)
	if err != nil {
		return err
	}
	if c.To != "" && !header {
		return c.rewrapSealed(ctx, con, a, key)
	}
	set, err := enrollment.OpenSet(c.Device, c.DryRun)
	if err != nil {
		return err
	}
	defer set.Close()
	switch {
	case c.To != "":
		err = c.rewrapHeader(ctx, con, a, key, set)
	case header:
		err = c.replaceDataKey(ctx, con, a, key, set)
	default:
		err = c.replaceSealed(ctx, con, a, key, set)
	}
	if err == nil && c.DryRun {
		fmt.Fprintln(con.err, "dry run: nothing was written")
	}
	return err
}

// rewrapSealed replaces a ciphertext by one under another key.
func (c *rotateCmd) rewrapSealed(ctx context.Context, con console, a *account.Account, k config.Key) error {
	place, err := a.Place(k.Source, c.To)
	if err != nil {
		return err
	}
	old, err := place.Read(ctx)
	if err != nil {
		return err
	}
	b, err := reEncrypt(ctx, a, k.KMSKeys, c.To, old.Ciphertext, k.Context)
	if err != nil {
		return err
	}
	now, kept, err := place.Replace(ctx, old, b.Ciphertext)
	if err != nil {
		return err
	}
	fmt.Fprintf(con.err, "instances boot again once their kms_key names %s; a list of both keys serves in between\n", b.KeyARN)
	return con.sealed(sealed{string(k.Source), b.KeyARN, k.Context, now.Version, kept}, c.JSON)
}

// reEncrypt tries the keys under which the ciphertext may be; none means that KMS
// finds out.
func reEncrypt(ctx context.Context, a *account.Account, from []string, to string, ciphertext []byte, context map[string]string) (keys.Blob, error) {
	if len(from) == 0 {
		from = []string{""}
	}
	var errs []error
	for _, arn := range from {
		b, err := a.ReEncrypt(ctx, arn, to, ciphertext, context)
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
	}
	return keys.Blob{}, errors.Join(errs...)
}

func (c *rotateCmd) rewrapHeader(ctx context.Context, con console, a *account.Account, k config.Key, set *enrollment.Set) error {
	to, err := a.DescribeKey(ctx, c.To)
	if err != nil {
		return err
	}
	n, err := set.Rewrap(ctx, to.ARN, func(ctx context.Context, t luks.KMSToken) (keys.Blob, error) {
		from, ec := c.claimed(k, t, set)
		return reEncrypt(ctx, a, from, to.ARN, t.Ciphertext, ec)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(con.err, "%s under %s; instances boot again once their kms_key names it\n", plural(n, "token"), to.ARN)
	return nil
}

// claimed returns keys and context for a token's ciphertext: those given, else those
// that the token names. Nothing in a token is authenticated; KMS judges.
func (c *rotateCmd) claimed(k config.Key, t luks.KMSToken, set *enrollment.Set) ([]string, map[string]string) {
	arns := k.KMSKeys
	if len(arns) == 0 {
		arns = []string{t.Key}
	}
	if c.Volume == "" && len(c.Context) == 0 {
		return arns, t.Context
	}
	return arns, keys.Bound(k.Context, set.UUID)
}

// replaceDataKey has KMS make a new data key.
func (c *rotateCmd) replaceDataKey(ctx context.Context, con console, a *account.Account, k config.Key, set *enrollment.Set) error {
	t, ok, err := set.KMS()
	if err != nil {
		return err
	}
	if !ok {
		return usage(c.Device[0]+" has no data key in its header", "add one with unlockctl enroll, or name the sealed passphrase with --sealed")
	}
	arns, ec := c.claimed(k, t, set)
	return set.Rotate(ctx, enrollment.Rotation{
		New: func(ctx context.Context) (*secret.Bytes, keys.Blob, error) {
			data, b, err := a.Generate(ctx, arns[0], ec)
			if err != nil {
				return nil, b, err
			}
			defer data.Wipe()
			return keys.Text(data), b, nil
		},
		Decrypt: func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error) {
			return decryptDataKey(ctx, a, arns, ciphertext, ec)
		},
		Log: con.note,
	})
}

// replaceSealed makes a new passphrase and seals it in the old one's place.
func (c *rotateCmd) replaceSealed(ctx context.Context, con console, a *account.Account, k config.Key, set *enrollment.Set) error {
	if len(k.KMSKeys) == 0 {
		return usage("no KMS key was named", "give --kms-key, or --volume for the one in the configuration")
	}
	place, err := a.Place(k.Source, k.KMSKeys[0])
	if err != nil {
		return err
	}
	object, err := place.Read(ctx)
	if err != nil {
		return err
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
			return decryptSealed(ctx, con, a, k, ciphertext)
		},
		Object: object.Ciphertext,
		Publish: func(ctx context.Context, b keys.Blob) error {
			now, kept, err := place.Replace(ctx, object, b.Ciphertext)
			s.Version, s.Kept = now.Version, kept
			if err == nil {
				con.note("%s: holds the new passphrase", k.Source)
			}
			return err
		},
		Log: con.note,
	})
	if err != nil {
		return err
	}
	return con.sealed(s, c.JSON)
}

// note tells of progress.
func (c console) note(format string, args ...any) {
	fmt.Fprintln(c.err, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
