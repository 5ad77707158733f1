package main

import (
	"context"
	"fmt"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// awsFlags choose whose AWS is asked.
type awsFlags struct {
	Profile string `placeholder:"NAME" help:"Profile of the AWS configuration; by default AWS_PROFILE."`
	Region  string `placeholder:"REGION" help:"Region of ${services}, but for a key with an ARN; by default that of the key's ARN."`
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
	identityFlags
}

// key returns the key that the flags name. Its ciphertext is where sealed says, or
// the volume in the configuration, else in the LUKS header. The configuration is nil
// without --volume.
func (f keyFlags) key(sealed string) (config.Key, *config.Config, error) {
	src := source.Header.Source()
	if sealed != "" {
		var err error
		if src, err = parsePlace(sealed); err != nil {
			return config.Key{}, nil, err
		}
	}
	if f.Volume == "" {
		if err := checkContext(f.Context); err != nil {
			return config.Key{}, nil, err
		}
		k := config.Key{Source: src, Context: f.Context}
		if f.KMSKey != "" {
			a, err := arn.Parse(f.KMSKey)
			if err != nil {
				return config.Key{}, nil, usage("--kms-key: "+err.Error(), "aws kms describe-key --key-id KEY prints the ARN")
			}
			k.KMSKeys = []arn.ARN{a}
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
			if sealed != "" {
				v.Key.Source = src
			}
			return v.Key, c, nil
		}
	}
	return config.Key{}, nil, usage(fmt.Sprintf("%s has no volume %q", f.Config, f.Volume), "")
}
