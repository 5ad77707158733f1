package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/measure"
	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

type policyCmd struct {
	For      string   `arg:"" optional:"" enum:"role,key,bucket" default:"role" help:"Whose policy: role (the instance's), key or bucket (${default})."`
	Config   string   `default:"${config}" placeholder:"FILE" help:"Configuration (${config})."`
	Role     string   `placeholder:"ARN" help:"The instance's role, for the policies of key and bucket."`
	Only     string   `placeholder:"NAME" help:"The key's ARN or the bucket, where the configuration has several."`
	Endpoint []string `name:"vpc-endpoint" placeholder:"ID" help:"Allow it only through this VPC endpoint; may be repeated."`
	VPC      []string `name:"source-vpc" placeholder:"ID" help:"Allow it only in this VPC, for the instance and for its calls, which go through VPC endpoints then; may be repeated."`
	Instance []string `name:"instance-arn" placeholder:"ARN" help:"Allow it only with credentials of this instance, such as arn:aws:ec2:REGION:ACCOUNT:instance/*; may be repeated."`
	Measured []string `placeholder:"FILE" help:"What unlockctl measure --json printed of an image that may have the key, where it has attest = true; may be repeated, for a fleet that changes images."`
	Admin    string   `name:"administrator" placeholder:"ARN" help:"Who alone may change the policy of a key with attest = true."`
	Explain  bool     `help:"Say what each statement is for, instead of JSON."`
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
	if err := c.bind(&d); err != nil {
		return err
	}
	if c.For == "role" {
		for _, v := range cfg.Volumes {
			if v.Key.Source.Kind == source.Ephemeral {
				con.note("volume %q is ephemeral: its key is made at random and needs no permissions", v.Name)
			}
		}
	}
	if attested, _ := policy.Attests(cfg, c.Only); attested && c.For == "key" {
		con.note("%s", policy.Attestation{Administrator: c.Admin}.Remaining())
	}
	if !c.Explain {
		return con.json(d)
	}
	for _, s := range d.Statement {
		fmt.Fprintf(con.out, "%s: %s %s\n    on %s\n    %s\n", s.Sid, strings.ToLower(s.Effect), strings.Join(s.Action, ", "), strings.Join(s.Resource, ", "), s.Why)
	}
	return nil
}

// bind adds the conditions that flags ask for.
func (c *policyCmd) bind(d *policy.Document) error {
	for _, row := range []struct {
		flag, prefix string
		values       []string
	}{{"--vpc-endpoint", "vpce-", c.Endpoint}, {"--source-vpc", "vpc-", c.VPC}, {"--instance-arn", "arn:", c.Instance}} {
		for _, v := range row.values {
			if row.flag == "--instance-arn" && !strings.Contains(v, ":instance/") {
				return usage(fmt.Sprintf("%s %q is not that of an instance", row.flag, v), "write arn:aws:ec2:REGION:ACCOUNT:instance/ID, or * for the ID")
			}
			if !strings.HasPrefix(v, row.prefix) {
				return usage(fmt.Sprintf("%s %q does not begin with %s", row.flag, v, row.prefix), "")
			}
		}
	}
	d.Bind(policy.Binding{Endpoints: c.Endpoint, VPCs: c.VPC, Instances: c.Instance})
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
	a, err := c.attestation(cfg, name)
	return policy.Key(cfg, name, c.Role, a), err
}

// attestation is what a key's policy has to ask for.
func (c *policyCmd) attestation(cfg *config.Config, key string) (policy.Attestation, error) {
	a := policy.Attestation{Administrator: c.Admin}
	attested, plain := policy.Attests(cfg, key)
	switch {
	case !attested && (c.Measured != nil || c.Admin != ""):
		return a, usage(c.Config+" has no attest = true for "+key, "leave out --measured and --administrator, or set attest")
	case !attested:
		return a, nil
	case plain:
		return a, usage(key+" is used both with attest = true and without", "take another KMS key for one of them: the policy refuses calls without attestation")
	case c.Measured == nil:
		return a, usage(key+" is attested, and no measurement is given", "unlockctl measure --json IMAGE >FILE, then --measured FILE")
	case !strings.HasPrefix(c.Admin, "arn:"):
		return a, usage("--administrator is not an ARN", "of the role or user who alone may change the key's policy later; without one nobody could")
	}
	for _, file := range c.Measured {
		data, err := os.ReadFile(file)
		if err != nil {
			return a, err
		}
		var p measure.Prediction
		if err := json.Unmarshal(data, &p); err != nil {
			return a, usage(fmt.Sprintf("reading %s: %v", file, err), "it is what unlockctl measure --json prints")
		}
		a.Measured = append(a.Measured, p)
	}
	if err := a.Check(); err != nil {
		return a, usage(err.Error(), "")
	}
	return a, nil
}
