package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/secret"
)

// Two operations of KMS are needed, with the fields below (AWS KMS API Reference,
// Decrypt and GenerateDataKey).
type (
	decryptInput struct {
		CiphertextBlob      []byte
		EncryptionContext   map[string]string `json:",omitempty"`
		KeyId               string
		EncryptionAlgorithm string
		Recipient           *recipient `json:",omitempty"`
	}
	generateInput struct {
		EncryptionContext map[string]string `json:",omitempty"`
		KeyId             string
		KeySpec           string
		Recipient         *recipient `json:",omitempty"`
	}
	// recipient is to whom KMS encrypts its answer, if its key policy agrees.
	recipient struct {
		AttestationDocument    []byte
		KeyEncryptionAlgorithm string
	}
	kmsOutput struct {
		KeyId                  string // ARN of the key that was used
		CiphertextBlob         []byte // of GenerateDataKey
		Plaintext              plaintext
		CiphertextForRecipient []byte // CMS EnvelopedData; there is no Plaintext then
	}
)

// plaintext takes base64 text out of JSON straight into locked memory.
type plaintext struct{ *secret.Bytes }

// UnmarshalJSON implements json.Unmarshaler; b stays the decoder's, and is wiped
// with the answer.
func (p *plaintext) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	text := bytes.TrimSuffix(bytes.TrimPrefix(b, []byte{'"'}), []byte{'"'})
	s := secret.New(base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Decode(s.Bytes(), text)
	if err != nil {
		s.Wipe()
		return errors.New("the plaintext is not base64") // the decoder's own words would quote it
	}
	s.Truncate(n)
	p.Wipe()
	p.Bytes = s
	return nil
}

// kmsRules are those of KMS' answers.
var kmsRules = []aws.Rule{
	{Codes: "NotFoundException", Class: aws.Slow, Hint: "{resource} does not exist in {region}: check kms_key"},
	{Codes: "InvalidCiphertextException", Class: aws.Final, Hint: "{otherContext}"},
	{Codes: incorrectKey, Class: aws.Final, Hint: "{otherKey}"},
	{Codes: "DisabledException", Class: aws.Final, Hint: "enable {resource} (aws kms enable-key), if whoever disabled it agrees"},
	{Codes: "KMSInvalidStateException", Class: aws.Final, Hint: "{resource} is pending deletion or otherwise unusable: aws kms cancel-key-deletion and enable-key, if that is wanted"},
	{Codes: "InvalidKeyUsageException", Class: aws.Final, Hint: "{resource} is not for encryption: kms_key must be a symmetric encryption key"},
	{Codes: "(other-key)", Class: aws.Final, Hint: "{service} did not use the key it was told to: check aws.endpoint"},
	{Codes: "(empty)", Class: aws.Final, Hint: "encrypt a passphrase that is not empty"},
}

// attestedRules are those of answers to attested requests. How KMS calls a document that
// it does not take is not documented.
var attestedRules = append([]aws.Rule{
	{Codes: denied, Class: aws.Slow, Hint: "allow {action} on {resource} to role {role}{context} for what this boot measured{measured}"},
	{Codes: "ValidationException InvalidAttestationDocumentException", Class: aws.Final, Hint: "KMS does not accept this instance's attestation document: check the instance's clock and that {region} supports NitroTPM attestation, or take another instance"},
	{Codes: "(unattested)", Class: aws.Final, Hint: "KMS did not attest this call, and what it answered is not used: check that {host} is KMS itself (aws.endpoint, aws.proxy)"},
	{Codes: "(envelope)", Class: aws.Final, Hint: "{envelope}"},
}, kmsRules...)

const (
	denied       = "AccessDeniedException"
	incorrectKey = "IncorrectKeyException"
)

// decrypt has KMS decrypt a blob's ciphertext under one of k's keys and its context
// as it has been filled in. What the blob says of itself only explains a refusal. The
// caller wipes the plaintext.
func (c *Client) decrypt(ctx context.Context, k config.Key, ec map[string]string, b Blob) (*secret.Bytes, []aws.Call, error) {
	r := aws.Request{
		Call: aws.Call{Service: "kms", Operation: "Decrypt"}, Op: "decrypting with KMS", Action: "kms:Decrypt",
		Words: []string{"{otherKey}", otherKey(k.KMSKeys, b), "{otherContext}", otherContext(k, ec, b)},
	}
	out, calls, err := c.kms(ctx, k, ec, r, func(key string, to *recipient) any {
		return decryptInput{CiphertextBlob: b.Ciphertext, EncryptionContext: ec, KeyId: key, EncryptionAlgorithm: "SYMMETRIC_DEFAULT", Recipient: to}
	}, func(out *kmsOutput) error {
		if out.Plaintext.Len() == 0 {
			return &aws.Fault{Code: "(empty)", Err: errors.New("the plaintext is empty")}
		}
		return nil
	})
	if err != nil {
		return nil, calls, err
	}
	return out.Plaintext.Bytes, calls, nil
}

// dataKeySize is the size of a data key in bytes (AES_256).
const dataKeySize = 32

// generate has KMS make a data key under the first of the keys whose region
// works. The caller wipes the plaintext.
func (c *Client) generate(ctx context.Context, k config.Key, ec map[string]string) (*secret.Bytes, Blob, []aws.Call, error) {
	r := aws.Request{Call: aws.Call{Service: "kms", Operation: "GenerateDataKey"}, Op: "making a data key with KMS", Action: "kms:GenerateDataKey"}
	out, calls, err := c.kms(ctx, k, ec, r, func(key string, to *recipient) any {
		return generateInput{EncryptionContext: ec, KeyId: key, KeySpec: "AES_256", Recipient: to}
	}, func(out *kmsOutput) error {
		if out.Plaintext.Len() != dataKeySize || checkSize(len(out.CiphertextBlob)) != nil {
			return &aws.Fault{Code: "(malformed)", Err: fmt.Errorf("a data key of %d bytes in a ciphertext of %d", out.Plaintext.Len(), len(out.CiphertextBlob))}
		}
		return nil
	})
	if err != nil {
		return nil, Blob{}, calls, err
	}
	return out.Plaintext.Bytes, Blob{Ciphertext: out.CiphertextBlob, KeyARN: out.KeyId, Context: ec}, calls, nil
}

// kms makes a request of KMS under the first key whose region answers, and
// returns the answer that check finds right; its plaintext is the caller's to
// wipe. It turns to the next key when a region is down, or when the ciphertext
// is under another key; a denial is a denial. With one key alone its region is
// waited for.
func (c *Client) kms(ctx context.Context, k config.Key, ec map[string]string, r aws.Request, input func(key string, to *recipient) any, check func(*kmsOutput) error) (*kmsOutput, []aws.Call, error) {
	r.Since, r.Target, r.Rules = time.Now(), "TrentService."+r.Operation, kmsRules
	if k.Attest {
		r.Rules = attestedRules
	}
	if len(ec) > 0 {
		r.Words = append(r.Words, "{context}", " with context "+ContextText(ec))
	}
	var calls []aws.Call
	keys := slices.Clone(k.KMSKeys)
	for {
		for _, key := range slices.Clone(keys) {
			r := r
			r.Region, r.Resource, r.Input, r.Hurry = key.Region, key.String(), input(key.String(), nil), len(keys) > 1
			if k.Attest {
				words := r.Words
				r.Renew = func(ctx context.Context) error {
					to, err := c.attested(ctx)
					r.Input, r.Words = input(key.String(), to), append(words[:len(words):len(words)], "{measured}", c.measured())
					return err
				}
			}
			r.URL = aws.Endpoint(c.o.AWS, "kms", r.Region)
			var out *kmsOutput
			err := c.aws.Do(ctx, &r, func(_ http.Header, body []byte) (err error) {
				out, err = c.readKMS(&r, k.Attest, body, check)
				return err
			})
			calls = append(calls, answered(r.Call)...)
			var failed *aws.Error
			var answer *aws.Refusal
			switch {
			case err == nil:
				return out, calls, nil
			case !errors.As(err, &failed) || ctx.Err() != nil:
				return nil, calls, err
			case errors.As(err, &answer) && answer.Code == incorrectKey && len(keys) > 1:
				keys = slices.DeleteFunc(keys, func(k arn.ARN) bool { return k == key })
			case !failed.Disturbed():
				return nil, calls, err
			}
			c.o.Log("%v; turning to the next key", err)
		}
	}
}

// readKMS reads an answer. One that is not right is wiped.
func (c *Client) readKMS(r *aws.Request, attest bool, body []byte, check func(*kmsOutput) error) (*kmsOutput, error) {
	out := new(kmsOutput)
	err := aws.Decode(body, out)
	if err == nil {
		r.KeyARN = out.KeyId
		if out.KeyId != r.Resource {
			err = &aws.Fault{Code: "(other-key)", Err: fmt.Errorf("KMS says it used %s instead of %s", out.KeyId, r.Resource)}
		}
	}
	if err == nil && attest {
		err = c.open(r, out)
	}
	if err == nil {
		err = check(out)
	}
	if err != nil {
		out.Plaintext.Wipe()
		return nil, err
	}
	return out, nil
}

// otherKey says why KMS may find a ciphertext to be under another key, as far as
// its blob tells.
func otherKey(keys []arn.ARN, b Blob) string {
	pinned := either(keys)
	switch {
	case b.KeyARN == "":
		return "the ciphertext is under another key than " + pinned + ": someone replaced it, or kms_key is wrong"
	case !slices.ContainsFunc(keys, func(k arn.ARN) bool { return k.String() == b.KeyARN }):
		return fmt.Sprintf("this disk's data key is under %s, not under %s: add that key to kms_key if it is yours", b.KeyARN, pinned)
	}
	return "this disk's token is forged, its data key is not under " + pinned + ": restore the header from a backup"
}

// either names keys: "a or b".
func either(keys []arn.ARN) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.String())
	}
	return strings.Join(names, " or ")
}

// otherContext says why KMS may find that a ciphertext is not one with this
// encryption context, as far as its blob tells.
func otherContext(k config.Key, ec map[string]string, b Blob) string {
	pinned, with, whose := either(k.KMSKeys), ContextText(ec), ""
	if len(config.Variables(k.Context)) > 0 {
		whose = ", or it is another instance's, which opens here by unlockctl recover alone"
	}
	switch set, claimed := ec[config.ContextSet], b.Context[config.ContextSet]; {
	case claimed != set:
		return fmt.Sprintf("this disk's token was made for set %s, not for this set %s, and copied here: restore this disk's own header", claimed, set)
	case set == "":
		return fmt.Sprintf("the ciphertext is damaged, or not encrypted under %s with context %s: someone replaced it, or key.context is wrong%s", pinned, with, whose)
	case !maps.Equal(b.Context, ec):
		return fmt.Sprintf("this disk's data key was made with context %s, but the configuration gives %s: correct key.context%s", ContextText(b.Context), with, whose)
	}
	return fmt.Sprintf("this disk's token is damaged or forged, its data key was not made under %s with context %s: restore the header from a backup", pinned, with)
}
