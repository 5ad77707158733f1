package main

import (
	"context"
	"errors"
	"fmt"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
	"unlock/internal/secret"
)

// pin is what every ciphertext is held against before anything is done with it: KMS
// keys, and the whole encryption context. Both are the operator's, given by hand or
// with a volume of the configuration. What a token or an object says of itself is
// never among it: whoever can write there could have us work with a passphrase of
// theirs, or put it under our key.
type pin struct {
	account *account.Account
	key     config.Key // KMSKeys and Source
	context map[string]string
}

// pinned returns the pin of a key; set is the UUID of the set of disks whose headers
// hold its ciphertext, where one does. claimed is what the header says of the key, to
// help who has named none.
func (f keyFlags) pinned(ctx context.Context, con console, a *account.Account, k config.Key, set, claimed string) (pin, error) {
	p := pin{account: a, key: k}
	if len(k.KMSKeys) == 0 {
		advice := "give --kms-key, or --volume for the one in the configuration"
		if claimed != "" {
			advice += fmt.Sprintf("; the LUKS header names %q, which is proof of nothing: see that this key is yours", claimed)
		}
		return p, usage("no KMS key was named", advice)
	}
	var err error
	if p.context, err = f.fill(ctx, con, a, k.Context); err == nil && k.Source.Kind == source.Header {
		p.context = keys.Bound(p.context, set)
	}
	return p, err
}

// passphrase returns the one in a ciphertext, in the form in which a boot uses it. The
// caller wipes it.
func (p pin) passphrase(ctx context.Context, con console, ciphertext []byte) (*secret.Bytes, error) {
	plaintext, _, err := p.account.DecryptAny(ctx, p.key.KMSKeys, ciphertext, p.context)
	if err != nil {
		return nil, err
	}
	if p.key.Source.Kind == source.Header {
		defer plaintext.Wipe()
		return keys.Text(plaintext), nil
	}
	if err := keys.FirstLine(plaintext, p.key.Source, con.note); err != nil {
		plaintext.Wipe()
		return nil, err
	}
	return plaintext, nil
}

// sealed returns the passphrase that is sealed in the key's place. The caller wipes it.
func (p pin) sealed(ctx context.Context, con console) (*secret.Bytes, error) {
	place, err := p.account.Place(p.key.Source, p.key.KMSKeys[0].String())
	if err != nil {
		return nil, err
	}
	done := con.working("reading " + p.key.Source.String())
	o, err := place.Read(ctx)
	done()
	if err != nil {
		return nil, err
	}
	return p.passphrase(ctx, con, o.Ciphertext)
}

// reEncrypt has KMS put a ciphertext under another key, and returns under which it was.
func (p pin) reEncrypt(ctx context.Context, to string, ciphertext []byte) (b keys.Blob, from string, err error) {
	var errs []error
	for _, from := range p.key.KMSKeys {
		b, err := p.account.ReEncrypt(ctx, from.String(), to, ciphertext, p.context)
		if err == nil {
			return b, from.String(), nil
		}
		errs = append(errs, err)
	}
	return keys.Blob{}, "", errors.Join(errs...)
}
