package main

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"

	"unlock/cmd/unlockctl/internal/account"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
)

// identityFlags say which instance is meant where an encryption context names one.
type identityFlags struct {
	InstanceID      string `name:"instance-id" placeholder:"ID" help:"Instance that $${instance-id} in the encryption context stands for."`
	InstanceAccount string `name:"instance-account" placeholder:"ID" help:"Account that $${account} stands for."`
	InstanceRegion  string `name:"instance-region" placeholder:"REGION" help:"Region that $${region} stands for."`
}

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// identity is what the flags say, and of which variables of a context they say nothing.
func (f identityFlags) identity(context map[string]string) (who config.Identity, missing []string, err error) {
	who = config.Identity{Instance: f.InstanceID, Account: f.InstanceAccount, Region: f.InstanceRegion}
	for _, row := range []struct {
		flag, value string
		fits        func(string) bool
	}{
		{"--instance-id", who.Instance, instanceID.MatchString},
		{"--instance-account", who.Account, accountID.MatchString},
		{"--instance-region", who.Region, arn.ValidRegion},
	} {
		if row.value != "" && !row.fits(row.value) {
			return who, nil, usage(fmt.Sprintf("%s %q cannot be one", row.flag, row.value), "EC2's are like i-0123456789abcdef0, 111122223333 and us-east-1")
		}
	}
	for _, v := range config.Variables(context) {
		if who.Get(v) == "" {
			missing = append(missing, v)
		}
	}
	return who, missing, nil
}

// given returns the encryption context for KMS, of which flags have to say all.
func (f identityFlags) given(context map[string]string) (map[string]string, error) {
	who, missing, err := f.identity(context)
	if err == nil && len(missing) > 0 {
		err = usage(fmt.Sprintf("the encryption context has ${%s}, and no flag says of which instance", missing[0]), "give "+flagOf(missing[0])+": what is encrypted opens there alone")
	}
	return config.Fill(context, who.Get), err
}

// fill does too, and has IMDS say of this machine what flags do not.
func (f identityFlags) fill(ctx context.Context, con console, a *account.Account, context map[string]string) (map[string]string, error) {
	who, missing, err := f.identity(context)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		here, err := a.Instance(ctx)
		if err != nil {
			return nil, usage(fmt.Sprintf("the encryption context has ${%s}, and this machine is no instance: %v", missing[0], err), "say with "+flagOf(missing[0])+" whose volume it is")
		}
		who = config.Identity{Instance: cmp.Or(who.Instance, here.Instance), Account: cmp.Or(who.Account, here.Account), Region: cmp.Or(who.Region, here.Region)}
		for _, v := range missing {
			con.note("${%s} is %s, of this machine; %s names another's", v, who.Get(v), flagOf(v))
		}
	}
	return config.Fill(context, who.Get), nil
}

func flagOf(variable string) string {
	return map[string]string{config.VarInstance: "--instance-id", config.VarAccount: "--instance-account", config.VarRegion: "--instance-region"}[variable]
}

// checkContext refuses an encryption context, given by hand, that no boot would have.
func checkContext(context map[string]string) error {
	for name, value := range context {
		if name == "" || name == config.ContextSet {
			return usage(fmt.Sprintf("context name %q is unlock's own", name), "choose another name")
		}
		if _, err := config.Parts(value); err != nil {
			return usage("--context: "+err.Error(), "write $${ for the text ${ itself")
		}
	}
	if slices.Contains(config.Variables(context), config.VarVolume) {
		return usage("${volume} stands for the name of a volume in a configuration", "write the name")
	}
	return nil
}
