package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"rsc.io/qr"

	"unlock/cmd/unlockctl/internal/enrollment"
	"unlock/cmd/unlockctl/internal/recovery"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
)

type enrollCmd struct {
	awsFlags
	keyFlags
	Device   []string `arg:"" placeholder:"DEVICE" help:"LUKS2 volume; of a stripe, all its disks."`
	Sealed   string   `placeholder:"PLACE" help:"Add the passphrase that is sealed there: ${places}; without it a data key, which goes into the LUKS header."`
	Recovery bool     `name:"recovery-key" help:"Add a recovery key, and print it."`
	Remove   string   `enum:",kms,recovery" default:"" placeholder:"KIND" help:"Remove a key: kms or recovery."`
	KeyFile  string   `placeholder:"FILE" help:"File with a passphrase that opens the volume, - for standard input; by default it is asked for."`
	DryRun   bool     `help:"Do it to a copy of the LUKS header in memory."`
}

// Run changes the keys of a volume. What opens it now goes on to do so.
func (c *enrollCmd) Run(ctx context.Context, con console) error {
	if kinds := count(c.Recovery, c.Remove != "", c.Sealed != ""); kinds > 1 {
		return usage("--recovery-key, --remove and --sealed exclude each other", "")
	}
	set, err := enrollment.OpenSet(c.Device, c.DryRun)
	if err != nil {
		return err
	}
	defer set.Close()
	if c.DryRun {
		con.err = &prefixed{con.err, "dry run: "}
	}
	switch {
	case c.Remove != "":
		err = c.remove(ctx, con, set)
	case c.Recovery:
		err = c.recoveryKey(ctx, con, set)
	default:
		err = c.kms(ctx, con, set)
	}
	if err == nil && c.DryRun {
		con.note("nothing was written")
	}
	if errors.Is(err, enrollment.ErrEnrolled) {
		advice := "replace it with unlockctl rotate --passphrase, or remove it with unlockctl enroll --remove=kms"
		if c.Recovery {
			advice = "remove the old one first, with unlockctl enroll --remove=recovery and a passphrase that stays"
		}
		return usage(err.Error(), advice)
	}
	return err
}

func count(conditions ...bool) (n int) {
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

func (c *enrollCmd) existing(ctx context.Context, con console) (*secret.Bytes, error) {
	return con.readSecret(ctx, c.KeyFile, fmt.Sprintf("Passphrase of %s:", strings.Join(c.Device, ", ")))
}

func (c *enrollCmd) remove(ctx context.Context, con console, set *enrollment.Set) error {
	kind := map[string]string{"kms": enrollment.TypeKMS, "recovery": enrollment.TypeRecovery}[c.Remove]
	proof, err := con.readSecret(ctx, c.KeyFile, "Passphrase that stays:")
	if err != nil {
		return err
	}
	defer proof.Wipe()
	if err := set.Remove(ctx, kind, proof); err != nil {
		return err
	}
	fmt.Fprintf(con.err, "%s: token %s and its keyslot are gone\n", strings.Join(c.Device, ", "), kind)
	return nil
}

// recoveryKey prints the key, which is its purpose: on standard output, and as a QR
// code where that is a terminal.
func (c *enrollCmd) recoveryKey(ctx context.Context, con console, set *enrollment.Set) error {
	if err := set.Vacant(enrollment.TypeRecovery); err != nil {
		return err
	}
	existing, err := c.existing(ctx, con)
	if err != nil {
		return err
	}
	defer existing.Wipe()
	key := recovery.New()
	defer key.Wipe()
	done := con.working("adding a keyslot")
	err = set.AddRecovery(ctx, existing, key)
	done()
	if err != nil {
		return wrongKey(err, existing)
	}
	if c.DryRun {
		return nil // a key that opens nothing must not end on paper
	}
	fmt.Fprintf(con.err, "Recovery key of volume %s. Write it down now; it is not shown again:\n\n", set.UUID)
	if _, err := con.out.Write(key.Bytes()); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(con.out); err != nil {
		return err
	}
	if terminal(con.out) {
		return printQR(raw(con.out), key)
	}
	return nil
}

// printQR draws two rows of the code with each line of text, dark on light.
func printQR(w io.Writer, text *secret.Bytes) error {
	code, err := qr.Encode(string(text.Bytes()), qr.M) // the encoder wants a string
	if err != nil {
		return fmt.Errorf("drawing the QR code: %w", err)
	}
	const quiet = 2
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("\x1b[30;107m")
		for x := -quiet; x < code.Size+quiet; x++ {
			upper, lower := code.Black(x, y), code.Black(x, y+1)
			b.WriteString(map[[2]bool]string{{false, false}: " ", {true, false}: "▀", {false, true}: "▄", {true, true}: "█"}[[2]bool{upper, lower}])
		}
		b.WriteString("\x1b[0m\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func (c *enrollCmd) kms(ctx context.Context, con console, set *enrollment.Set) error {
	key, cfg, err := c.key(c.Sealed)
	if err != nil {
		return err
	}
	if key.Source.Kind == source.Header {
		if err := set.Vacant(enrollment.TypeKMS); err != nil {
			return err
		}
	}
	a, err := c.account(ctx, cfg)
	if err != nil {
		return err
	}
	defer a.Close()
	p, err := c.pinned(ctx, con, a, key, set.UUID, "")
	if err != nil {
		return err
	}
	existing, err := c.existing(ctx, con)
	if err != nil {
		return err
	}
	defer existing.Wipe()
	done := con.working("trying the passphrase")
	err = set.Check(ctx, existing) // before AWS is asked
	done()
	if err != nil {
		return wrongKey(err, existing)
	}
	if key.Source.Kind != source.Header {
		passphrase, err := p.sealed(ctx, con)
		if err != nil {
			return err
		}
		defer passphrase.Wipe()
		done := con.working("adding a keyslot")
		err = set.AddSealed(ctx, existing, passphrase, keys.Guessable(passphrase),
			enrollment.SealedToken{Source: key.Source.String(), Key: key.KMSKeys[0].String(), Context: p.context})
		done()
		if err != nil {
			return err
		}
		fmt.Fprintf(con.err, "%s: opens with the passphrase in %s\n", strings.Join(c.Device, ", "), key.Source)
		return nil
	}
	done = con.working("asking KMS for a data key")
	data, b, err := a.Generate(ctx, key.KMSKeys[0].String(), p.context)
	done()
	if err != nil {
		return err
	}
	defer data.Wipe()
	passphrase := keys.Text(data)
	defer passphrase.Wipe()
	done = con.working("adding a keyslot")
	err = set.AddKMS(ctx, existing, passphrase, b)
	done()
	if err != nil {
		return err
	}
	fmt.Fprintf(con.err, "%s: opens with a data key under %s, context %s\n",
		strings.Join(c.Device, ", "), b.KeyARN, keys.ContextText(b.Context))
	return con.keyTable(keys.Blob{KeyARN: b.KeyARN, Context: key.Context})
}

// keyTable prints the [key] for unlock.toml of a data key in the header.
func (c console) keyTable(b keys.Blob) error {
	return c.sealed(sealed{Source: source.Header.Name, KMSKey: b.KeyARN, Context: b.Context}, false)
}
