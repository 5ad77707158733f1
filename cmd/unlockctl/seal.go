package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf16"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
)

type sealCmd struct {
	awsFlags
	Place         string            `arg:"" help:"Where to put the ciphertext: ${places}."`
	KMSKey        string            `name:"kms-key" required:"" placeholder:"KEY" help:"KMS key: its ARN, id or alias."`
	Context       map[string]string `mapsep:"," placeholder:"NAME=VALUE,…" help:"KMS encryption context; may be repeated."`
	identityFlags `embed:""`
	Passphrase    string `placeholder:"FILE" help:"File with the passphrase, - for standard input; by default a random one of 256 bits is made."`
	Force         bool   `help:"Replace the ciphertext that is there, and keep the old one beside it."`
	JSON          bool   `help:"Print JSON."`
}

// sealed is what seal and rotate print.
type sealed struct {
	Source  string            `json:"source"`
	KMSKey  string            `json:"kms_key"`
	Context map[string]string `json:"context,omitempty"`
	Version string            `json:"version,omitempty"`
	Kept    string            `json:"kept,omitempty"` // where the old ciphertext is
}

// Run seals a passphrase. Nobody sees it: neither the terminal nor a file.
func (c *sealCmd) Run(ctx context.Context, con console) error {
	if err := checkContext(c.Context); err != nil {
		return err
	}
	context, err := c.given(c.Context)
	if err != nil {
		return err
	}
	src, err := parsePlace(c.Place)
	if err != nil {
		return err
	}
	if len(c.Context) == 0 {
		con.note("note: without --context whatever the KMS key has encrypted can be put in place of this ciphertext, and doctor will say so")
	}
	a, err := c.account(ctx, nil)
	if err != nil {
		return err
	}
	defer a.Close()
	passphrase, err := c.passphrase(ctx, con)
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	done := con.working("asking KMS to encrypt")
	b, err := a.Encrypt(ctx, c.KMSKey, passphrase, context)
	done()
	if err != nil {
		return err
	}
	place, err := a.Place(src, b.KeyARN)
	if err != nil {
		return err
	}
	done = con.working("writing " + c.Place)
	now, err := place.Create(ctx, b.Ciphertext)
	kept := ""
	if errors.Is(err, account.ErrExists) && c.Force {
		var old account.Object
		if old, err = place.Read(ctx); err == nil {
			now, kept, err = place.Replace(ctx, old, b.Ciphertext)
		}
	}
	done()
	if err != nil {
		return err
	}
	return con.sealed(sealed{src.String(), b.KeyARN, c.Context, now.Version, kept}, c.JSON)
}

// parsePlace reads where a ciphertext is kept.
func parsePlace(text string) (source.Source, error) {
	s, err := source.Parse(text)
	places := "places are " + source.Forms("and", (*source.Kind).Sealed)
	switch {
	case err != nil:
		return s, usage(err.Error(), places)
	case s.Kind == source.Header:
		return s, usage("a key in the LUKS header is not sealed beforehand", "unlockctl enroll puts one into a volume that exists")
	case s.Kind == source.Ephemeral:
		return s, usage("an ephemeral key is kept nowhere", places)
	}
	return s, nil
}

// passphrase makes one, or reads the one that is given: a single line, as whoever
// types or pipes it into cryptsetup has it.
func (c *sealCmd) passphrase(ctx context.Context, con console) (*secret.Bytes, error) {
	if c.Passphrase == "" {
		return keys.Random(), nil
	}
	s, err := con.readSecret(ctx, c.Passphrase, "")
	if err != nil {
		return nil, err
	}
	if n := s.Len(); s.Bytes()[n-1] == '\n' {
		s.Truncate(n - 1)
	}
	if s.Len() == 0 || bytes.IndexByte(s.Bytes(), '\n') >= 0 {
		s.Wipe()
		return nil, usage("the passphrase is empty or has a newline in it: a boot uses what is before the first newline",
			"take the output of: openssl rand -base64 32")
	}
	return s, nil
}

// sealed prints what to put into unlock.toml, and on standard error where things are.
func (c console) sealed(s sealed, asJSON bool) error {
	if asJSON {
		return c.json(s)
	}
	if s.Kept != "" {
		fmt.Fprintf(c.err, "the old ciphertext is kept as %s\n", s.Kept)
	}
	fmt.Fprintf(c.err, "for %s:\n", config.DefaultFile)
	fmt.Fprintf(c.out, "[key]\nsource  = %s\nkms_key = %s\n", quote(s.Source), quote(s.KMSKey))
	if len(s.Context) > 0 {
		fmt.Fprintln(c.out, "[key.context]")
		for _, name := range slices.Sorted(maps.Keys(s.Context)) {
			fmt.Fprintf(c.out, "%s = %s\n", bareOrQuoted(name), quote(s.Context[name]))
		}
	}
	return nil
}

// quote writes a TOML string; JSON's escapes are among TOML's.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string can always be encoded
	return string(b)
}

func bareOrQuoted(name string) string {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return quote(name)
		}
	}
	return name
}

// json prints v for scripts. What is not to be shown is escaped, as JSON does it.
func (c console) json(v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	var out bytes.Buffer
	for _, r := range text.String() {
		if r == '\n' || strconv.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	_, err := c.out.Write(out.Bytes())
	return err
}

// plural writes "1 disk" or "3 disks".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}
