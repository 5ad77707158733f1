// Package policy writes the AWS policies that a configuration needs and no more: for
// the instance's role, for a KMS key and for a bucket (IAM User Guide, "Grammar of
// the IAM JSON policy language"; KMS Developer Guide, "kms:EncryptionContext").
package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
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

// Role is the identity policy of the instance's role. Attestation is the key policy's
// matter, which the account cannot undo in IAM.
func Role(c *config.Config) (Document, error) {
	d := newDocument()
	for i, u := range uses(c) {
		read, err := reading(c, u, i)
		if err != nil {
			return d, err
		}
		d.Statement = append(d.Statement, read...)
		d.Statement = append(d.Statement, kms(u, i, names(u.key.KMSKeys)))
	}
	return d, nil
}

// Key is what a key policy needs beside the statement that lets the account
// administer the key, for a role of any account. Where the configuration has attest =
// true, it asks for the measured images.
func Key(c *config.Config, arn, role string, a Attestation) Document {
	d := newDocument()
	for i, u := range uses(c) {
		if !slices.Contains(names(u.key.KMSKeys), arn) {
			continue
		}
		s := kms(u, i, []string{"*"}) // in a key policy that is the key itself
		s.Principal = map[string]string{"AWS": role}
		if u.key.Attest {
			d.Statement = append(d.Statement, a.attested(s)...)
		} else {
			d.Statement = append(d.Statement, s)
		}
	}
	if attested, _ := Attests(c, arn); attested {
		d.Statement = append(d.Statement, a.denials()...)
	}
	return d
}

// Bucket is the policy of a bucket: the role reads its objects, and nobody does so
// in the clear.
func Bucket(c *config.Config, bucket, role string) (Document, error) {
	d := newDocument()
	partition := "aws"
	for i, u := range uses(c) {
		if s := u.key.Source; s.Kind != source.S3 || s.Bucket != bucket {
			continue
		}
		partition = u.key.Home().Partition
		read, err := reading(c, u, i)
		if err != nil {
			return d, err
		}
		for _, s := range read {
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
	return d, nil
}

// Keys lists the KMS keys of a configuration, Buckets its buckets.
func Keys(c *config.Config) []string {
	var list []string
	for _, u := range uses(c) {
		list = add(list, names(u.key.KMSKeys)...)
	}
	return list
}

// Buckets lists the buckets of a configuration.
func Buckets(c *config.Config) []string {
	var list []string
	for _, u := range uses(c) {
		if u.key.Source.Kind == source.S3 {
			list = add(list, u.key.Source.Bucket)
		}
	}
	return list
}

func names(keys []arn.ARN) []string {
	var list []string
	for _, k := range keys {
		list = append(list, k.String())
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
		if v.Key.Source.Kind == source.Ephemeral {
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
	header := u.key.Source.Kind == source.Header
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
	s.Condition = map[string]map[string]any{}
	for _, name := range names {
		operator, value := allowed(u.key.Context[name])
		if s.Condition[operator] == nil {
			s.Condition[operator] = map[string]any{}
		}
		s.Condition[operator]["kms:EncryptionContext:"+name] = value
	}
	if header {
		names = append(names, config.ContextSet)
		s.Condition["Null"] = map[string]any{"kms:EncryptionContext:" + config.ContextSet: "false"}
	}
	if len(names) > 0 {
		slices.Sort(names)
		for i := range names {
			names[i] = variable(names[i])
		}
		s.Condition["ForAllValues:StringEquals"] = map[string]any{"kms:EncryptionContextKeys": names}
		s.Why += "; with this encryption context only, so not what else the key protects" + loose(config.Variables(u.key.Context))
	} else {
		s.Why += "; without an encryption context the role may decrypt whatever the key has encrypted: set [key.context]"
	}
	return s
}

// reading is the statement for where a ciphertext is read from, if that is AWS.
func reading(c *config.Config, u use, number int) ([]Statement, error) {
	s := u.key.Source
	if s.Kind.Remote == nil {
		return nil, nil
	}
	place, err := places.Of(s.Kind)
	if err != nil {
		return nil, err
	}
	words := places.Words{Key: u.key, Region: c.AWS.Region, Escape: literal}
	return []Statement{{Sid: sid("UnlockRead", number), Effect: "Allow", Action: []string{s.Action()},
		Resource: []string{place.ARN(words)}, Why: place.Why}}, nil
}

// anyInstance stands for the id of an instance. literal leaves no * in what is text.
const anyInstance = "i-*"

// allowed is the condition for a value of the encryption context. IAM knows the account of
// who calls, but has no name for the id and the Region of its instance that could stand
// here: any will do.
func allowed(value string) (operator, pattern string) {
	parts, _ := config.Parts(value)
	operator = "StringEquals"
	write := variable
	for _, p := range parts {
		if p.Variable == config.VarInstance || p.Variable == config.VarRegion {
			operator, write = "StringLike", literal
		}
	}
	for _, p := range parts {
		pattern += write(p.Text) + map[string]string{config.VarInstance: anyInstance, config.VarRegion: "*-*", config.VarAccount: "${aws:PrincipalAccount}"}[p.Variable]
	}
	return operator, pattern
}

// loose says what a role with such a statement can do beyond its instance's need.
func loose(variables []string) string {
	if !slices.Contains(variables, config.VarInstance) {
		return ""
	}
	return "; of any instance, as IAM has no condition that compares the context with who calls: what of another's disk or ciphertext is read with this role decrypts (--instance-arn lists those allowed, unlockctl audit reports an instance that uses another's)"
}

// variable keeps IAM from taking what is in a value for a variable.
func variable(value string) string { return strings.ReplaceAll(value, "${", "${$}{") }

// literal keeps IAM from taking what is in a name for wildcards and variables.
func literal(name string) string {
	return strings.NewReplacer("*", "${*}", "?", "${?}", "$", "${$}").Replace(name)
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
