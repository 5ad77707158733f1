// Package policy writes the AWS policies that a configuration needs and no more: for
// the instance's role, for a KMS key and for a bucket (IAM User Guide, "Grammar of
// the IAM JSON policy language"; KMS Developer Guide, "kms:EncryptionContext").
package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"unlock/internal/config"
)

// Document is a policy.
type Document struct {
	Version   string // "2012-10-17"
	Statement []Statement
}

// Statement of a Document. Why says for people what it is for.
type Statement struct {
	Sid       string
	Effect    string
	Principal any `json:",omitempty"`
	Action    []string
	Resource  []string
	Condition map[string]map[string]any `json:",omitempty"`
	Why       string                    `json:"-"`
}

// Role is the identity policy of the instance's role.
func Role(c *config.Config) Document {
	d := newDocument()
	for i, u := range uses(c) {
		d.Statement = append(d.Statement, source(c, u, i)...)
		d.Statement = append(d.Statement, kms(u, i, u.key.KMSKeys))
	}
	return d
}

// Key is what a key policy needs beside the statement that lets the account
// administer the key, for a role of any account.
func Key(c *config.Config, arn, role string) Document {
	d := newDocument()
	for i, u := range uses(c) {
		if !slices.Contains(u.key.KMSKeys, arn) {
			continue
		}
		s := kms(u, i, []string{"*"}) // in a key policy that is the key itself
		s.Principal = map[string]string{"AWS": role}
		d.Statement = append(d.Statement, s)
	}
	return d
}

// Bucket is the policy of a bucket: the role reads its objects, and nobody does so
// in the clear.
func Bucket(c *config.Config, bucket, role string) Document {
	d := newDocument()
	partition := "aws"
	for i, u := range uses(c) {
		if name, _ := u.key.Source.Bucket(); u.key.Source.Scheme() != config.SourceS3 || name != bucket {
			continue
		}
		partition = partitionOf(u.key)
		for _, s := range source(c, u, i) {
			s.Principal = map[string]string{"AWS": role}
			d.Statement = append(d.Statement, s)
		}
	}
	arn := "arn:" + partition + ":s3:::" + bucket
	d.Statement = append(d.Statement, Statement{
		Sid: "UnlockTLSOnly", Effect: "Deny", Principal: "*", Action: []string{"s3:*"}, Resource: []string{arn, arn + "/*"},
		Condition: map[string]map[string]any{"Bool": {"aws:SecureTransport": "false"}},
		Why:       "nobody speaks to the bucket without TLS",
	})
	return d
}

// Keys lists the KMS keys of a configuration, Buckets its buckets.
func Keys(c *config.Config) []string {
	var list []string
	for _, u := range uses(c) {
		list = add(list, u.key.KMSKeys...)
	}
	return list
}

// Buckets lists the buckets of a configuration.
func Buckets(c *config.Config) []string {
	var list []string
	for _, u := range uses(c) {
		if bucket, _ := u.key.Source.Bucket(); u.key.Source.Scheme() == config.SourceS3 {
			list = add(list, bucket)
		}
	}
	return list
}

func newDocument() Document { return Document{Version: "2012-10-17", Statement: []Statement{}} }

// use is a key and the volumes that it opens.
type use struct {
	key     config.Key
	volumes []string
	formats bool // a data key may have to be made
}

// uses returns the keys that go to KMS, each once.
func uses(c *config.Config) []use {
	var list []use
	for _, v := range c.Volumes {
		if v.Key.Source.Scheme() == config.SourceEphemeral {
			continue
		}
		i := slices.IndexFunc(list, func(u use) bool { return u.key.Equal(v.Key) })
		if i < 0 {
			list = append(list, use{key: v.Key})
			i = len(list) - 1
		}
		list[i].volumes = append(list[i].volumes, v.Name)
		list[i].formats = list[i].formats || v.Format == config.FormatBlank
	}
	return list
}

// kms is the statement for a key's calls to KMS.
func kms(u use, number int, resources []string) Statement {
	header := u.key.Source.Scheme() == config.SourceHeader
	s := Statement{Sid: sid("UnlockKMS", number), Effect: "Allow", Action: []string{"kms:Decrypt"}, Resource: resources,
		Why: "decrypt the passphrase of " + strings.Join(u.volumes, ", ")}
	if header {
		s.Why = "decrypt the data key in the LUKS header of " + strings.Join(u.volumes, ", ")
	}
	if header && u.formats {
		s.Action = append(s.Action, "kms:GenerateDataKey")
		s.Why += ", and make one when a disk is formatted"
	}
	names := slices.Sorted(maps.Keys(u.key.Context))
	equals := map[string]any{}
	for _, name := range names {
		equals["kms:EncryptionContext:"+name] = u.key.Context[name]
	}
	s.Condition = map[string]map[string]any{}
	if len(equals) > 0 {
		s.Condition["StringEquals"] = equals
	}
	if header {
		names = append(names, config.ContextSet)
		s.Condition["Null"] = map[string]any{"kms:EncryptionContext:" + config.ContextSet: "false"}
	}
	if len(names) > 0 {
		slices.Sort(names)
		s.Condition["ForAllValues:StringEquals"] = map[string]any{"kms:EncryptionContextKeys": names}
		s.Why += "; with this encryption context only, so not what else the key protects"
	} else {
		s.Why += "; without an encryption context the role may decrypt whatever the key has encrypted: set [key.context]"
	}
	return s
}

// source is the statement for where a ciphertext is read from, if that is AWS.
func source(c *config.Config, u use, number int) []Statement {
	s := Statement{Effect: "Allow"}
	partition := partitionOf(u.key)
	switch u.key.Source.Scheme() {
	case config.SourceS3:
		bucket, key := u.key.Source.Bucket()
		s.Sid, s.Action = sid("UnlockRead", number), []string{"s3:GetObject"}
		if u.key.VersionID != "" {
			s.Action = []string{"s3:GetObjectVersion"}
		}
		s.Resource = []string{"arn:" + partition + ":s3:::" + bucket + "/" + key}
		s.Why = "read the ciphertext, this object alone; a missing object looks like a denial, as listing is not allowed"
	case config.SourceSSM:
		s.Sid, s.Action = sid("UnlockRead", number), []string{"ssm:GetParameter"}
		s.Resource = []string{parameterARN(c, u.key)}
		s.Why = "read the ciphertext, this parameter alone"
	default:
		return nil
	}
	return []Statement{s}
}

// parameterARN is in the region where a boot looks for the parameter.
func parameterARN(c *config.Config, k config.Key) string {
	name := k.Source.Path()
	if strings.HasPrefix(name, "arn:") {
		return name
	}
	p := strings.SplitN(k.KMSKeys[0], ":", 6) // config has checked it
	region := p[3]
	if c.AWS.Region != "" {
		region = c.AWS.Region
	}
	return fmt.Sprintf("arn:%s:ssm:%s:%s:parameter/%s", p[1], region, p[4], strings.TrimPrefix(name, "/"))
}

func partitionOf(k config.Key) string {
	return strings.SplitN(k.KMSKeys[0], ":", 3)[1] // config has checked it
}

// sid numbers statements from the second on.
func sid(name string, number int) string {
	if number == 0 {
		return name
	}
	return fmt.Sprint(name, number+1)
}

func add(list []string, names ...string) []string {
	for _, n := range names {
		if !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}
