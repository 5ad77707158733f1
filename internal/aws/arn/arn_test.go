package arn_test

import (
	"strings"
	"testing"

	"unlock/internal/aws/arn"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]arn.ARN{
		"arn:aws:kms:us-east-1:111122223333:key/1234":              {"aws", "kms", "us-east-1", "111122223333", "key/1234"},
		"arn:aws-cn:s3:::bucket/key":                               {"aws-cn", "s3", "", "", "bucket/key"},
		"arn:aws:ssm:eu-west-3:111122223333:parameter/key:3":       {"aws", "ssm", "eu-west-3", "111122223333", "parameter/key:3"},
		"arn:aws:secretsmanager:us-east-1:111122223333:secret:a:b": {"aws", "secretsmanager", "us-east-1", "111122223333", "secret:a:b"},
	} {
		got, err := arn.Parse(text)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("String of %q = %q", text, got)
		}
	}
	for name, text := range map[string]string{
		"nothing":             "",
		"a name":              "alias/unlock",
		"too short":           "arn:aws:kms:us-east-1:111122223333",
		"no resource":         "arn:aws:kms:us-east-1:111122223333:",
		"another scheme":      "urn:aws:kms:us-east-1:111122223333:key/1",
		"another partition":   "arn:amazon:kms:us-east-1:111122223333:key/1",
		"a region with a dot": "arn:aws:kms:us-east-1.example.com:111122223333:key/1",
		"a short account":     "arn:aws:kms:us-east-1:1111:key/1",
	} {
		if got, err := arn.Parse(text); err == nil || !strings.Contains(err.Error(), "is not an ARN") || got.String() != "" {
			t.Errorf("%s: Parse(%q) = %v, %v, want an error", name, text, got, err)
		}
	}
}
