package main

import (
	"context"

	"unlock/internal/account"
	"unlock/internal/config"
	"unlock/internal/secret"
)

// openSealed returns the passphrase that is sealed in the key's place. The caller
// wipes it.
func openSealed(ctx context.Context, a *account.Account, k config.Key) (*secret.Bytes, error) {
	var arn string
	if len(k.KMSKeys) > 0 {
		arn = k.KMSKeys[0]
	}
	place, err := a.Place(k.Source, arn)
	if err != nil {
		return nil, err
	}
	o, err := place.Read(ctx)
	if err != nil {
		return nil, err
	}
	plaintext, err := decryptAny(ctx, a, k.KMSKeys, o.Ciphertext, k.Context)
	if err != nil {
		return nil, err
	}
	return sealedText(plaintext)
}
