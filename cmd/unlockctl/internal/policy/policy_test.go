package policy_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"unlock/cmd/unlockctl/internal/policy"
	"unlock/internal/config"
)

const (
	arn   = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	cnARN = "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	role  = "arn:aws:iam::111122223333:role/unlock"
)

const sealed = `[key]
source  = "s3://a-bucket/dir/key"
kms_key = "` + arn + `"
context = { purpose = "secretfs" }
[[volume]]
name   = "secretfs"
device = "instance-store"
format = "blank"
[[volume]]
name   = "scratch"
device = "/dev/vdb"
`

const named = "[key]\nsource = \"header\"\nkms_key = \"" + arn + "\"\ncontext = { host = \"a*-${instance-id}\", account = \"${account}\", region = \"${region}\", purpose = \"${volume}\" }\n" +
	"[[volume]]\nname = \"secretfs\"\ndevice = \"instance-store\"\n"

func TestDocuments(t *testing.T) {
	header := func(format string) string {
		return "[key]\nsource = \"header\"\nkms_key = \"" + arn + "\"\n[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nformat = \"" + format + "\"\n"
	}
	const decryptSealed = `{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],"Condition":{
		"StringEquals":{"kms:EncryptionContext:purpose":"secretfs"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["purpose"]}}}`
	const set = `"Condition":{"Null":{"kms:EncryptionContext:unlock:set":"false"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["unlock:set"]}}`
	for name, row := range map[string]struct {
		config string
		make   func(*config.Config) (policy.Document, error)
		want   string // of the statements
	}{
		"role, sealed in S3": {sealed, policy.Role, `[
			{"Sid":"UnlockRead","Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::a-bucket/dir/key"]},` + decryptSealed + `]`},
		"role, header, formatting": {header("blank"), policy.Role,
			`[{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt","kms:GenerateDataKey"],"Resource":["` + arn + `"],` + set + `}]`},
		"role, header, never formatting": {header("never"), policy.Role,
			`[{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],` + set + `}]`},
		"role, ephemeral": {"[[volume]]\nname = \"a\"\ndevice = \"instance-store\"\nformat = \"ephemeral\"\n", policy.Role, `[]`},
		"role, SSM in China": {"[key]\nsource = \"ssm:/unlock/key\"\nkms_key = \"" + cnARN + "\"\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", policy.Role, `[
			{"Sid":"UnlockRead","Effect":"Allow","Action":["ssm:GetParameter"],"Resource":["arn:aws-cn:ssm:cn-north-1:111122223333:parameter/unlock/key"]},
			{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + cnARN + `"]}]`},
		"role, a secret with a wildcard in its name": {"[key]\nsource = \"secretsmanager:unlock/*${x}?\"\nversion_id = \"v\"\nkms_key = \"" + cnARN + "\"\ncontext = { purpose = \"$${aws:username}*\" }\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", policy.Role, `[
			{"Sid":"UnlockRead","Effect":"Allow","Action":["secretsmanager:GetSecretValue"],"Resource":["arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:unlock/${*}${$}{x}${?}-??????"]},
			{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + cnARN + `"],"Condition":{
			"StringEquals":{"kms:EncryptionContext:purpose":"${$}{aws:username}*"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["purpose"]}}}]`},
		"role, a version in SSM": {"[key]\nsource = \"ssm:/unlock/key:3\"\nkms_key = \"" + cnARN + "\"\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", policy.Role, `[
			{"Sid":"UnlockRead","Effect":"Allow","Action":["ssm:GetParameter"],"Resource":["arn:aws-cn:ssm:cn-north-1:111122223333:parameter/unlock/key"]},
			{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + cnARN + `"]}]`},
		"role, what IAM would read": {"[key]\nsource = \"s3://a-bucket/keys/a*b?${aws:username}\"\nkms_key = \"" + arn + "\"\ncontext = { purpose = \"$${aws:PrincipalTag/x}*\" }\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n", policy.Role, `[
			{"Sid":"UnlockRead","Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::a-bucket/keys/a${*}b${?}${$}{aws:username}"]},
			{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],"Condition":{
			 "StringEquals":{"kms:EncryptionContext:purpose":"${$}{aws:PrincipalTag/x}*"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["purpose"]}}}]`},
		"role, bound": {header("never"), func(c *config.Config) (policy.Document, error) {
			d, err := policy.Role(c)
			d.Bind(policy.Binding{Endpoints: []string{"vpce-1"}, VPCs: []string{"vpc-1"}, Instances: []string{"arn:aws:ec2:us-east-1:111122223333:instance/*"}})
			return d, err
		}, `[{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],"Condition":{
			"Null":{"kms:EncryptionContext:unlock:set":"false"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["unlock:set"]},
			"StringEquals":{"aws:SourceVpce":["vpce-1"],"aws:SourceVpc":["vpc-1"],"aws:Ec2InstanceSourceVpc":["vpc-1"]},
			"ArnLike":{"ec2:SourceInstanceARN":["arn:aws:ec2:us-east-1:111122223333:instance/*"]}}}]`},
		"role, of this instance": {named, policy.Role, `[{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],"Condition":{
			"StringLike":{"kms:EncryptionContext:host":"a${*}-i-*","kms:EncryptionContext:region":"*-*"},
			"StringEquals":{"kms:EncryptionContext:account":"${aws:PrincipalAccount}","kms:EncryptionContext:purpose":"secretfs"},
			"Null":{"kms:EncryptionContext:unlock:set":"false"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["account","host","purpose","region","unlock:set"]}}}]`},
		"role, of these instances": {named, func(c *config.Config) (policy.Document, error) {
			d, err := policy.Role(c)
			d.Bind(policy.Binding{Instances: []string{"arn:aws:ec2:us-east-1:111122223333:instance/i-0123456789abcdef0", "arn:aws:ec2:us-east-1:111122223333:instance/i-0a*"}})
			return d, err
		}, `[{"Sid":"UnlockKMS","Effect":"Allow","Action":["kms:Decrypt"],"Resource":["` + arn + `"],"Condition":{
			"StringLike":{"kms:EncryptionContext:host":["a${*}-i-0123456789abcdef0","a${*}-i-0a*"],"kms:EncryptionContext:region":"*-*"},
			"StringEquals":{"kms:EncryptionContext:account":"${aws:PrincipalAccount}","kms:EncryptionContext:purpose":"secretfs"},
			"ArnLike":{"ec2:SourceInstanceARN":["arn:aws:ec2:us-east-1:111122223333:instance/i-0123456789abcdef0","arn:aws:ec2:us-east-1:111122223333:instance/i-0a*"]},
			"Null":{"kms:EncryptionContext:unlock:set":"false"},"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["account","host","purpose","region","unlock:set"]}}}]`},
		"bucket, bound": {sealed, func(c *config.Config) (policy.Document, error) {
			d, err := policy.Bucket(c, "a-bucket", role)
			d.Bind(policy.Binding{Endpoints: []string{"vpce-1"}})
			return d, err
		}, `[
			{"Sid":"UnlockRead","Effect":"Allow","Principal":{"AWS":"` + role + `"},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::a-bucket/dir/key"],
			 "Condition":{"StringEquals":{"aws:SourceVpce":["vpce-1"]}}},
			{"Sid":"UnlockTLSOnly","Effect":"Deny","Principal":"*","Action":["s3:*"],"Resource":["arn:aws:s3:::a-bucket","arn:aws:s3:::a-bucket/*"],
			 "Condition":{"Bool":{"aws:SecureTransport":"false"}}}]`},
		"key": {header("never"), func(c *config.Config) (policy.Document, error) {
			return policy.Key(c, arn, role, policy.Attestation{}), nil
		},
			`[{"Sid":"UnlockKMS","Effect":"Allow","Principal":{"AWS":"` + role + `"},"Action":["kms:Decrypt"],"Resource":["*"],` + set + `}]`},
		"another key": {header("never"), func(c *config.Config) (policy.Document, error) {
			return policy.Key(c, cnARN, role, policy.Attestation{}), nil
		}, `[]`},
		"bucket": {sealed, func(c *config.Config) (policy.Document, error) { return policy.Bucket(c, "a-bucket", role) }, `[
			{"Sid":"UnlockRead","Effect":"Allow","Principal":{"AWS":"` + role + `"},"Action":["s3:GetObject"],"Resource":["arn:aws:s3:::a-bucket/dir/key"]},
			{"Sid":"UnlockTLSOnly","Effect":"Deny","Principal":"*","Action":["s3:*"],"Resource":["arn:aws:s3:::a-bucket","arn:aws:s3:::a-bucket/*"],
			 "Condition":{"Bool":{"aws:SecureTransport":"false"}}}]`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Parse("unlock.toml", []byte(row.config))
			if err != nil {
				t.Fatal(err)
			}
			d, err := row.make(c)
			if err != nil {
				t.Fatal(err)
			}
			b, err := json.Marshal(d.Statement)
			if err != nil || d.Version != "2012-10-17" {
				t.Fatalf("version %q, %v", d.Version, err)
			}
			var got, want any
			if err := json.Unmarshal([]byte(row.want), &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", b, row.want)
			}
			for _, s := range d.Statement {
				if s.Why == "" {
					t.Errorf("%s is not explained", s.Sid)
				}
			}
		})
	}
}
