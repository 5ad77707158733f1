package account

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"unlock/internal/aws/arn"
	"unlock/internal/keys"
	"unlock/internal/secret"
)

// inRegion has KMS asked in the region of the key's ARN, where the key is, whatever
// region was chosen for the rest.
func (a *Account) inRegion(key string) func(*kms.Options) {
	return func(o *kms.Options) {
		if r := arn.Region(key); r != "" {
			o.Region = r
		}
	}
}

// Encrypt has KMS encrypt a plaintext of at most 4096 bytes. key may be an ARN, an
// id or an alias; the blob names the ARN of the key that was used.
func (a *Account) Encrypt(ctx context.Context, key string, plaintext *secret.Bytes, context map[string]string) (keys.Blob, error) {
	out, err := a.kms.Encrypt(ctx, &kms.EncryptInput{KeyId: &key, Plaintext: plaintext.Bytes(), EncryptionContext: context}, a.inRegion(key))
	if err != nil {
		return keys.Blob{}, wrap("encrypting with KMS", "kms:Encrypt", key, err)
	}
	return keys.Blob{Ciphertext: out.CiphertextBlob, KeyARN: aws.ToString(out.KeyId), Context: context}, nil
}

// Decrypt has KMS decrypt a ciphertext under key. The caller wipes the plaintext.
func (a *Account) Decrypt(ctx context.Context, key string, ciphertext []byte, context map[string]string) (*secret.Bytes, error) {
	in := &kms.DecryptInput{KeyId: &key, CiphertextBlob: ciphertext, EncryptionContext: context}
	out, err := a.kms.Decrypt(ctx, in, a.inRegion(key))
	if err != nil {
		return nil, wrap("decrypting with KMS", "kms:Decrypt", key, err)
	}
	if len(out.Plaintext) == 0 {
		return nil, &Error{Op: "decrypting with KMS", Err: errPlaintext}
	}
	return secret.Take(out.Plaintext), nil
}

// DecryptAny has KMS decrypt under the first of keys that made the ciphertext, and
// says which that is. The caller wipes the plaintext.
func (a *Account) DecryptAny(ctx context.Context, keys []arn.ARN, ciphertext []byte, context map[string]string) (*secret.Bytes, string, error) {
	var errs []error
	for _, key := range keys {
		s, err := a.Decrypt(ctx, key.String(), ciphertext, context)
		if err == nil {
			return s, key.String(), nil
		}
		errs = append(errs, err)
	}
	return nil, "", errors.Join(errs...)
}

// Generate has KMS make a data key of 32 bytes. The caller wipes it.
func (a *Account) Generate(ctx context.Context, key string, context map[string]string) (*secret.Bytes, keys.Blob, error) {
	in := &kms.GenerateDataKeyInput{KeyId: &key, KeySpec: types.DataKeySpecAes256, EncryptionContext: context}
	out, err := a.kms.GenerateDataKey(ctx, in, a.inRegion(key))
	if err != nil {
		return nil, keys.Blob{}, wrap("making a data key with KMS", "kms:GenerateDataKey", key, err)
	}
	b := keys.Blob{Ciphertext: out.CiphertextBlob, KeyARN: aws.ToString(out.KeyId), Context: context}
	return secret.Take(out.Plaintext), b, nil
}

// ReEncrypt has KMS encrypt under the key to what is encrypted under the key from,
// with the same context. A ciphertext under any other key than from is refused. The
// plaintext does not leave KMS.
func (a *Account) ReEncrypt(ctx context.Context, from, to string, ciphertext []byte, context map[string]string) (keys.Blob, error) {
	in := &kms.ReEncryptInput{CiphertextBlob: ciphertext, SourceKeyId: &from, SourceEncryptionContext: context,
		DestinationKeyId: &to, DestinationEncryptionContext: context}
	out, err := a.kms.ReEncrypt(ctx, in, a.inRegion(to))
	if err != nil {
		return keys.Blob{}, wrap("re-encrypting with KMS", "kms:ReEncryptFrom and kms:ReEncryptTo", to, err)
	}
	return keys.Blob{Ciphertext: out.CiphertextBlob, KeyARN: aws.ToString(out.KeyId), Context: context}, nil
}

// KeyPolicy returns the policy of a key, in JSON.
func (a *Account) KeyPolicy(ctx context.Context, key string) (string, error) {
	out, err := a.kms.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: &key}, a.inRegion(key))
	if err != nil {
		return "", wrap("reading the key's policy", "kms:GetKeyPolicy", key, err)
	}
	return aws.ToString(out.Policy), nil
}

// Key describes a KMS key.
type Key struct {
	ARN     string
	State   string // "Enabled", "Disabled", "PendingDeletion", …
	Manager string // "AWS" or "CUSTOMER"
}

// DescribeKey asks KMS about a key, which may be named by an alias.
func (a *Account) DescribeKey(ctx context.Context, key string) (Key, error) {
	out, err := a.kms.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: &key}, a.inRegion(key))
	if err != nil {
		return Key{}, wrap("looking up the KMS key", "kms:DescribeKey", key, err)
	}
	m := out.KeyMetadata
	return Key{aws.ToString(m.Arn), string(m.KeyState), string(m.KeyManager)}, nil
}
