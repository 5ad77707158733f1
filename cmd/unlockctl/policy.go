package main

import (
	"fmt"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/config"
)

type policyCmd struct {
	For     string `arg:"" optional:"" enum:"role,key,bucket" default:"role" help:"Whose policy: role (the instance's), key or bucket (${default})."`
	Config  string `default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Role    string `placeholder:"ARN" help:"The instance's role, for the policies of key and bucket."`
	Only    string `placeholder:"NAME" help:"The key's ARN or the bucket, where the configuration has several."`
	Explain bool   `help:"Say what each statement is for, instead of JSON."`
}

// Run prints a policy, ready to paste.
func (c *policyCmd) Run(con console) error {
	cfg, err := config.Load(c.Config, "")
	if err != nil {
		return err
	}
	d, err := c.document(cfg)
	if err != nil {
		return err
	}
	if !c.Explain {
		return con.json(d)
	}
	for _, s := range d.Statement {
		fmt.Fprintf(con.out, "%s: %s %s\n    on %s\n    %s\n", s.Sid, strings.ToLower(s.Effect), strings.Join(s.Action, ", "), strings.Join(s.Resource, ", "), s.Why)
	}
	return nil
}

func (c *policyCmd) document(cfg *config.Config) (policy.Document, error) {
	if c.For == "role" {
		return policy.Role(cfg)
	}
	if !strings.HasPrefix(c.Role, "arn:") {
		return policy.Document{}, usage("--role is not an ARN", "aws iam get-role --role-name NAME --query Role.Arn prints it")
	}
	names := policy.Keys(cfg)
	if c.For == "bucket" {
		names = policy.Buckets(cfg)
	}
	if c.Only != "" && !slices.Contains(names, c.Only) || len(names) == 0 {
		return policy.Document{}, usage(fmt.Sprintf("%s uses no such %s", c.Config, c.For), "it uses: "+strings.Join(names, ", "))
	}
	name := names[0]
	if c.Only != "" {
		name = c.Only
	} else if len(names) > 1 {
		return policy.Document{}, usage(fmt.Sprintf("%s uses several: which %s?", c.Config, c.For), "--only, one of "+strings.Join(names, ", "))
	}
	if c.For == "bucket" {
		return policy.Bucket(cfg, name, c.Role)
	}
	return policy.Key(cfg, name, c.Role), nil
}
