package main

import (
	"context"
	"fmt"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/cmd/unlockctl/internal/enrollment"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/luks"
	"unlock/internal/secret"
)

// devices rotates what is on disks.
func (c *rotateCmd) devices(ctx context.Context, con console, a *account.Account, k config.Key, header bool) (sealed, error) {
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
	p, err := c.pinned(ctx, con, a, k, set.UUID, t.Key)
	if err != nil {
		return sealed{}, err
	}
	if c.To != "" {
		return c.rewrapHeader(ctx, con, p, set)
	}
	return c.replaceDataKey(ctx, con, p, set)
}

func (c *rotateCmd) rewrapHeader(ctx context.Context, con console, p pin, set *enrollment.Set) (sealed, error) {
	to, err := c.target(ctx, con, p)
	if err != nil {
		return sealed{}, err
	}
	s := sealed{Source: source.Header.Name, KMSKey: to, Context: p.key.Context}
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
	s := sealed{Source: source.Header.Name, KMSKey: p.key.KMSKeys[0].String(), Context: p.key.Context}
	err := set.Rotate(ctx, enrollment.Rotation{
		New: func(ctx context.Context) (*secret.Bytes, keys.Blob, error) {
			data, b, err := p.account.Generate(ctx, p.key.KMSKeys[0].String(), p.context)
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
	p, err := c.pinned(ctx, con, a, k, "", "")
	if err != nil {
		return sealed{}, err
	}
	place, err := a.Place(k.Source, k.KMSKeys[0].String())
	if err != nil {
		return sealed{}, err
	}
	object, err := place.Read(ctx)
	if err != nil {
		return sealed{}, err
	}
	s := sealed{Source: k.Source.String(), KMSKey: k.KMSKeys[0].String(), Context: k.Context, Version: object.Version}
	err = set.Rotate(ctx, enrollment.Rotation{
		New: func(ctx context.Context) (*secret.Bytes, keys.Blob, error) {
			passphrase := keys.Random()
			b, err := a.Encrypt(ctx, k.KMSKeys[0].String(), passphrase, p.context)
			if err != nil {
				passphrase.Wipe()
			}
			return passphrase, b, err
		},
		Decrypt: func(ctx context.Context, ciphertext []byte) (*secret.Bytes, error) {
			return p.passphrase(ctx, con, ciphertext)
		},
		Object: object.Ciphertext,
		Source: k.Source.String(),
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
