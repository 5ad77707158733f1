package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"unlock/internal/account"
	"unlock/internal/config"
	"unlock/internal/keys"
	"unlock/internal/secret"
)

// awsFlags choose whose AWS is asked.
type awsFlags struct {
	Profile string `placeholder:"NAME" help:"Profile of the AWS configuration; by default AWS_PROFILE."`
	Region  string `placeholder:"REGION" help:"Region of KMS, S3 and SSM; by default that of the key's ARN."`
}

func (f awsFlags) account(ctx context.Context, c *config.Config) (*account.Account, error) {
	o := account.Options{Profile: f.Profile, Region: f.Region}
	if c != nil {
		o.AWS = c.AWS
	}
	return account.New(ctx, o)
}

// keyFlags say which key a command is about: by hand, or as a volume of the
// configuration has it.
type keyFlags struct {
	Config  string            `default:"${config}" placeholder:"FILE" help:"Configuration in which --volume is looked up (${config})."`
	Volume  string            `placeholder:"NAME" help:"Take the key of this volume in the configuration."`
	KMSKey  string            `name:"kms-key" placeholder:"ARN" help:"KMS key: its ARN."`
	Context map[string]string `mapsep:"," placeholder:"NAME=VALUE,…" help:"KMS encryption context; may be repeated."`
}

// key returns the key that the flags name; source is where its ciphertext is when
// no volume of the configuration says so. The configuration is nil without --volume.
func (f keyFlags) key(source config.Source) (config.Key, *config.Config, error) {
	if f.Volume == "" {
		if err := checkContext(f.Context); err != nil {
			return config.Key{}, nil, err
		}
		k := config.Key{Source: source, Context: f.Context}
		if f.KMSKey != "" {
			k.KMSKeys = []string{f.KMSKey}
		}
		return k, nil, nil
	}
	if f.KMSKey != "" || len(f.Context) > 0 {
		return config.Key{}, nil, usage("--volume takes key and context from the configuration", "leave --kms-key and --context away")
	}
	c, err := config.Load(f.Config, "")
	if err != nil {
		return config.Key{}, nil, err
	}
	for _, v := range c.Volumes {
		if v.Name == f.Volume {
			return v.Key, c, nil
		}
	}
	return config.Key{}, nil, usage(fmt.Sprintf("%s has no volume %q", f.Config, f.Volume), "")
}

func checkContext(context map[string]string) error {
	for name := range context {
		if name == "" || name == keys.ContextSet {
			return usage(fmt.Sprintf("context name %q is unlock's own", name), "choose another name")
		}
	}
	return nil
}

// bound returns the encryption context of a data key: that of the configuration,
// and the set of disks.
func bound(context map[string]string, set string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, context)
	all[keys.ContextSet] = set
	return all
}

// contextText writes an encryption context for people.
func contextText(context map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(context)) {
		list = append(list, name+"="+context[name])
	}
	return strings.Join(list, ", ")
}

// dataKeyText returns the passphrase that a data key stands for, its base64 text,
// and wipes the key. The caller wipes the result.
func dataKeyText(key *secret.Bytes) *secret.Bytes {
	defer key.Wipe()
	text := secret.New(base64.StdEncoding.EncodedLen(key.Len()))
	base64.StdEncoding.Encode(text.Bytes(), key.Bytes())
	return text
}

// sealedText shortens a sealed passphrase as a boot does: to its first line.
func sealedText(plaintext *secret.Bytes) (*secret.Bytes, error) {
	if i := bytes.IndexByte(plaintext.Bytes(), '\n'); i >= 0 {
		plaintext.Truncate(i)
	}
	if plaintext.Len() == 0 {
		plaintext.Wipe()
		return nil, errors.New("the sealed passphrase is empty")
	}
	return plaintext, nil
}

// decryptAny has KMS decrypt under the first of the keys that made the ciphertext.
func decryptAny(ctx context.Context, a *account.Account, arns []string, ciphertext []byte, context map[string]string) (*secret.Bytes, error) {
	var errs []error
	for _, arn := range arns {
		s, err := a.Decrypt(ctx, arn, ciphertext, context)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, usage("no KMS key was named", "give --kms-key, or --volume for the one in the configuration")
	}
	return nil, errors.Join(errs...)
}
