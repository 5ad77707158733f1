package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"unlock/internal/ec2"
	"unlock/internal/secret"
)

// decrypt has KMS decrypt a blob's ciphertext under one of the pinned keys and
// the given context. What the blob says of itself only explains a refusal. The
// caller wipes the plaintext.
func (c *Client) decrypt(ctx context.Context, keys []string, ec map[string]string, b Blob) (*secret.Bytes, []Call, error) {
	var plaintext *secret.Bytes
	r := request{
		Call: Call{Service: "kms", Operation: "Decrypt"},
		op:   "decrypting with KMS", action: "kms:Decrypt", context: ec,
		otherKey: otherKey(keys, b), otherContext: otherContext(keys, ec, b),
	}
	calls, err := c.kms(ctx, keys, r, func(ctx context.Context, client *kms.Client, arn string) (string, middleware.Metadata, error) {
		out, err := client.Decrypt(ctx, &kms.DecryptInput{
			CiphertextBlob: b.Ciphertext, EncryptionContext: ec, KeyId: &arn,
			EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
		})
		if err != nil {
			return "", middleware.Metadata{}, err
		}
		plaintext = secret.Take(out.Plaintext)
		return aws.ToString(out.KeyId), out.ResultMetadata, nil
	})
	if err == nil && plaintext.Len() == 0 {
		err = &Error{Op: r.op, Err: errors.New("the plaintext is empty"), Hint: "encrypt a passphrase that is not empty"}
	}
	if err != nil {
		plaintext.Wipe()
		return nil, calls, err
	}
	return plaintext, calls, nil
}

// dataKeySize is the size of a data key in bytes (AES_256).
const dataKeySize = 32

// generate has KMS make a data key under the first of the keys whose region
// works. The caller wipes the plaintext.
func (c *Client) generate(ctx context.Context, keys []string, ec map[string]string) (*secret.Bytes, Blob, []Call, error) {
	var plaintext *secret.Bytes
	b := Blob{Context: ec}
	r := request{
		Call: Call{Service: "kms", Operation: "GenerateDataKey"},
		op:   "making a data key with KMS", action: "kms:GenerateDataKey", context: ec,
	}
	calls, err := c.kms(ctx, keys, r, func(ctx context.Context, client *kms.Client, arn string) (string, middleware.Metadata, error) {
		out, err := client.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{
			EncryptionContext: ec, KeyId: &arn, KeySpec: types.DataKeySpecAes256,
		})
		if err != nil {
			return "", middleware.Metadata{}, err
		}
		plaintext.Wipe()
		plaintext = secret.Take(out.Plaintext)
		b.KeyARN, b.Ciphertext = aws.ToString(out.KeyId), out.CiphertextBlob
		if plaintext.Len() != dataKeySize || checkSize(len(b.Ciphertext)) != nil {
			return "", out.ResultMetadata, &fault{"(malformed)", fmt.Errorf("a data key of %d bytes in a ciphertext of %d", plaintext.Len(), len(b.Ciphertext))}
		}
		return b.KeyARN, out.ResultMetadata, nil
	})
	if err != nil {
		plaintext.Wipe()
		return nil, Blob{}, calls, err
	}
	return plaintext, b, calls, nil
}

// kms makes a request of KMS under the first key whose region answers. It turns
// to the next key when a region is down, or when the ciphertext is under
// another key; a denial is a denial. With one key alone its region is waited for.
func (c *Client) kms(ctx context.Context, keys []string, r request, do func(context.Context, *kms.Client, string) (string, middleware.Metadata, error)) ([]Call, error) {
	var calls []Call
	start := time.Now()
	keys = slices.Clone(keys)
	for {
		for _, arn := range slices.Clone(keys) {
			r := r
			r.region, r.resource = regionOf(arn), arn
			u := endpoint(c.o.AWS, "kms", r.region)
			r.host = u.Host
			call, err := c.retry(ctx, &r, start, len(keys) > 1, func(ctx context.Context, role ec2.Role) error {
				// A new client each time: its pool of buffers is then this request's
				// alone, and may be overwritten after it.
				client := kms.New(kms.Options{
					Region: r.region, BaseEndpoint: aws.String(u.String()),
					Credentials:  aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return role.Credentials, nil }),
					HTTPClient:   signer{c},
					HTTPSignerV4: signer{c},
					Retryer:      aws.NopRetryer{},

					DisableClockSkewCorrection: true,
				})
				var used string
				var meta middleware.Metadata
				var err error
				secret.Do(func() { used, meta, err = do(ctx, client, arn) }) // the SDK makes strings of plaintexts
				if err != nil {
					return kmsError(err)
				}
				r.RequestID, _ = awsmiddleware.GetRequestIDMetadata(meta)
				r.KeyARN = used
				if used != arn {
					return &fault{"(other-key)", fmt.Errorf("KMS says it used %s instead of %s", used, arn)}
				}
				return nil
			})
			calls = append(calls, answered(call)...)
			var failed *Error
			var answer *refusal
			switch {
			case err == nil:
				return calls, nil
			case !errors.As(err, &failed) || ctx.Err() != nil:
				return calls, err
			case errors.As(err, &answer) && answer.code == "IncorrectKeyException" && len(keys) > 1:
				keys = slices.DeleteFunc(keys, func(k string) bool { return k == arn })
			case failed.class != fast:
				return calls, err
			}
			c.o.Log("%v; turning to the next key", err)
		}
	}
}

// kmsError takes AWS' answer out of the SDK's nested errors.
func kmsError(err error) error {
	var resp *awshttp.ResponseError
	var half *readError
	if !errors.As(err, &resp) || resp.HTTPStatusCode() == 0 || errors.As(err, &half) {
		return err // no answer, or half of one
	}
	answer := answerOf(resp.Response.Response)
	var api smithy.APIError
	if answer == nil {
		return &fault{"(malformed)", err}
	}
	if errors.As(err, &api) {
		answer.code, answer.message = api.ErrorCode(), api.ErrorMessage()
	}
	return answer
}

// otherKey says why KMS may find a ciphertext to be under another key, as far as
// its blob tells.
func otherKey(keys []string, b Blob) string {
	pinned := strings.Join(keys, " or ")
	switch {
	case b.KeyARN == "":
		return "the ciphertext is under another key than " + pinned + ": someone replaced it, or kms_key is wrong"
	case !slices.Contains(keys, b.KeyARN):
		return fmt.Sprintf("this disk's data key is under %s, not under %s: add that key to kms_key if it is yours", b.KeyARN, pinned)
	}
	return "this disk's token is forged, its data key is not under " + pinned + ": restore the header from a backup"
}

// otherContext says why KMS may find that a ciphertext is not one with this
// encryption context, as far as its blob tells.
func otherContext(keys []string, ec map[string]string, b Blob) string {
	pinned, with := strings.Join(keys, " or "), contextText(ec)
	switch set, claimed := ec[ContextSet], b.Context[ContextSet]; {
	case claimed != set:
		return fmt.Sprintf("this disk's token was made for set %s, not for this set %s, and copied here: restore this disk's own header", claimed, set)
	case set == "":
		return fmt.Sprintf("the ciphertext is damaged, or not encrypted under %s with context %s: someone replaced it, or key.context is wrong", pinned, with)
	case !maps.Equal(b.Context, ec):
		return fmt.Sprintf("this disk's data key was made with context %s, but the configuration gives %s: correct key.context", contextText(b.Context), with)
	}
	return fmt.Sprintf("this disk's token is damaged or forged, its data key was not made under %s with context %s: restore the header from a backup", pinned, with)
}
