package source_test

import (
	"strings"
	"testing"

	"unlock/internal/aws/arn"
	"unlock/internal/keys/source"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const parameter, secret = "arn:aws:ssm:eu-west-3:111122223333:parameter/unlock/key", "arn:aws:secretsmanager:eu-west-3:111122223333:secret:unlock/key-a1b2c3"
	for text, want := range map[string]source.Source{
		"s3://bucket/dir/a key":      {Kind: source.S3, Bucket: "bucket", Name: "dir/a key"},
		"file:/etc/unlock/key":       {Kind: source.File, Name: "/etc/unlock/key"},
		"ssm:/unlock/key":            {Kind: source.SSM, Name: "/unlock/key"},
		"ssm:key:3":                  {Kind: source.SSM, Name: "key", Version: "3"},
		"ssm:" + parameter:           {Kind: source.SSM, Name: "/unlock/key", ARN: arn.MustParse(parameter)},
		"ssm:" + parameter + ":prod": {Kind: source.SSM, Name: "/unlock/key", Version: "prod", ARN: arn.MustParse(parameter + ":prod")},
		"secretsmanager:unlock/key":  {Kind: source.SecretsManager, Name: "unlock/key"},
		"secretsmanager:" + secret:   {Kind: source.SecretsManager, Name: "unlock/key-a1b2c3", ARN: arn.MustParse(secret)},
		"header":                     {Kind: source.Header},
		"ephemeral":                  {Kind: source.Ephemeral},
	} {
		got, err := source.Parse(text)
		if err != nil {
			t.Errorf("Parse(%q): %v", text, err)
			continue
		}
		if got.String() != text {
			t.Errorf("Parse(%q) is written %q", text, got)
		}
		if got.Kind != want.Kind || got.Bucket != want.Bucket || got.Name != want.Name || got.Version != want.Version || got.ARN != want.ARN {
			t.Errorf("Parse(%q) = %+v, want %+v", text, got, want)
		}
	}
	for text, says := range map[string]string{
		"":                            "not a key source",
		"s3":                          "is not s3://BUCKET/KEY",
		"s3:bucket/key":               "is not s3://BUCKET/KEY",
		"s3://bucket":                 "is not s3://BUCKET/KEY",
		"s3://a.example.com#/key":     "is not s3://BUCKET/KEY",
		"file:key":                    "absolute path",
		"ssm:":                        "is not ssm:NAME",
		"ssm::3":                      "is not ssm:NAME",
		"ssm:" + secret:               "is not ssm:NAME",
		"secretsmanager:":             "is not secretsmanager:NAME",
		"secretsmanager:a:b":          "is not secretsmanager:NAME",
		"secretsmanager:" + parameter: "is not secretsmanager:NAME",
		"header:x":                    "is not header",
		"vault:secret/key":            "not a key source",
	} {
		if _, err := source.Parse(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Parse(%q) = %v, want %q", text, err, says)
		}
	}
}
