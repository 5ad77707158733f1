package places_test

import (
	"os"
	"strings"
	"testing"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// TestComplete: the tool and the README know every kind of source.
func TestComplete(t *testing.T) {
	readme, err := os.ReadFile("../../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range source.Kinds {
		p, err := places.Of(k)
		if err != nil {
			t.Error(err)
			continue
		}
		if p.Text == "" {
			t.Errorf("%s: nothing for the manual", k.Name)
		}
		if k.Remote != nil && (p.Resource == "" || p.Why == "") {
			t.Errorf("%s: nothing for policies", k.Name)
		}
		if written := p.Create != nil && p.Replace != nil; written != (k.Remote != nil && k.Remote.Target != "") {
			t.Errorf("%s: requests that write = %t, want them for what is asked in the JSON protocol alone", k.Name, written)
		}
		if p.Create != nil && (p.Kept == "" || p.Trail == nil) {
			t.Errorf("%s: not said where old ciphertexts are kept, or how reads are recorded", k.Name)
		}
		for _, word := range append([]string{k.Form}, service(k)...) {
			if !strings.Contains(string(readme), "`"+word+"`") {
				t.Errorf("the README does not know `%s`", word)
			}
		}
	}
}

func service(k *source.Kind) []string {
	if k.Remote == nil {
		return nil
	}
	return []string{k.Name}
}

// TestARN is what policies call a ciphertext.
func TestARN(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"s3://bucket/dir/key": "arn:aws-cn:s3:::bucket/dir/key",
		"ssm:/unlock/key":     "arn:aws-cn:ssm:cn-north-1:111122223333:parameter/unlock/key",
		"ssm:key:3":           "arn:aws-cn:ssm:cn-north-1:111122223333:parameter/key",
		"ssm:arn:aws-cn:ssm:cn-northwest-1:444455556666:parameter/unlock/key:prod": "arn:aws-cn:ssm:cn-northwest-1:444455556666:parameter/unlock/key",
		"secretsmanager:unlock/key": "arn:aws-cn:secretsmanager:cn-north-1:111122223333:secret:unlock/key-??????",
		"secretsmanager:arn:aws-cn:secretsmanager:cn-northwest-1:444455556666:secret:unlock/key-a1b2c3": "arn:aws-cn:secretsmanager:cn-northwest-1:444455556666:secret:unlock/key-a1b2c3",
	} {
		c, err := config.Parse("unlock.toml", []byte("[key]\nsource = \""+text+"\"\nkms_key = \"arn:aws-cn:kms:cn-north-1:111122223333:key/1\"\n[[volume]]\nname = \"a\"\ndevice = \"/dev/vdb\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		k := c.Volumes[0].Key
		p, err := places.Of(k.Source.Kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.ARN(places.Words{Key: k}); got != want {
			t.Errorf("ARN of %s = %s, want %s", text, got, want)
		}
	}
}
