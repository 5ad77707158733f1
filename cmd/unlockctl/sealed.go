package main

import (
	"context"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/secret"
)

// openSealed returns the passphrase that is sealed in the key's place. The caller
// wipes it.
func openSealed(ctx context.Context, con console, a *account.Account, k config.Key) (*secret.Bytes, error) {
	var arn string
	if len(k.KMSKeys) > 0 {
		arn = k.KMSKeys[0]
	}
	place, err := a.Place(k.Source, arn)
	if err != nil {
		return nil, err
	}
	done := con.working("reading " + string(k.Source))
	o, err := place.Read(ctx)
	done()
	if err != nil {
		return nil, err
	}
	return decryptSealed(ctx, con, a, k, o.Ciphertext)
}

// decryptSealed returns the passphrase in a sealed ciphertext, shortened as a boot
// does. The caller wipes it.
func decryptSealed(ctx context.Context, con console, a *account.Account, k config.Key, ciphertext []byte) (*secret.Bytes, error) {
	plaintext, err := decrypt(ctx, a, k.KMSKeys, ciphertext, k.Context)
	if err != nil {
		return nil, err
	}
	if err := keys.FirstLine(plaintext, k.Source, con.note); err != nil {
		plaintext.Wipe()
		return nil, err
	}
	return plaintext, nil
}

// decryptDataKey returns the passphrase that an encrypted data key stands for. The
// caller wipes it.
func decryptDataKey(ctx context.Context, a *account.Account, arns []string, ciphertext []byte, context map[string]string) (*secret.Bytes, error) {
	data, err := decrypt(ctx, a, arns, ciphertext, context)
	if err != nil {
		return nil, err
	}
	defer data.Wipe()
	return keys.Text(data), nil
}

func decrypt(ctx context.Context, a *account.Account, arns []string, ciphertext []byte, context map[string]string) (*secret.Bytes, error) {
	if len(arns) == 0 {
		return nil, usage("no KMS key was named", "give --kms-key, or --volume for the one in the configuration")
	}
	plaintext, _, err := a.DecryptAny(ctx, arns, ciphertext, context)
	return plaintext, err
}
