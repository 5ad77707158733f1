package keys_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
	"unlock/test/program"
)

// TestStandardInput holds the passphrase taken from a plaintext against what
// cryptsetup reads from standard input: a volume formatted by piping the
// plaintext into cryptsetup opens with our passphrase as key file, byte for byte.
func TestStandardInput(t *testing.T) {
	program.Need(t, "cryptsetup")
	for name, row := range map[string]struct {
		plaintext, want string
		says            string // part of the error where want is ""
	}{
		"no newline":             {plaintext: "correct horse", want: "correct horse"},
		"trailing newline":       {plaintext: "correct horse\n", want: "correct horse"},
		"two trailing newlines":  {plaintext: "correct horse\n\n", want: "correct horse"},
		"carriage return":        {plaintext: "correct horse\r\n", want: "correct horse\r"},
		"trailing blank":         {plaintext: "correct horse ", want: "correct horse "},
		"two lines":              {plaintext: "correct horse\nbattery", want: "correct horse"},
		"binary":                 {plaintext: "\x00\x01\xff\xfe\x80\x00\x7f\x10", want: "\x00\x01\xff\xfe\x80\x00\x7f\x10"},
		"short, and a newline":   {plaintext: "short\n", want: "short"},
		"newline early in a key": {plaintext: "abc\ndefghijklmnopqrstuvwxyz", says: "its first newline leaves 3 bytes of 27"},
		"newline first":          {plaintext: "\ncorrect horse", says: "it is empty"},
		"nothing but a newline":  {plaintext: "\n", says: "it is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := open(t, row.plaintext)
			if row.want == "" {
				if err == nil || !strings.Contains(err.Error(), row.says) || hintOf(err) == "" {
					t.Errorf("error = %v, hint = %q, want %q", err, hintOf(err), row.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != row.want {
				t.Errorf("passphrase = %q, want %q", got, row.want)
			}
			image := filepath.Join(t.TempDir(), "luks")
			if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			cryptsetup(t, row.plaintext, "luksFormat", "--batch-mode", "--type", "luks1", "--pbkdf-force-iterations", "1000", image)
			cryptsetup(t, string(got), "open", "--test-passphrase", "--key-file", "-", image)
		})
	}
}

// open has KMS give a plaintext, and returns the passphrase taken from it.
func open(t *testing.T, plaintext string) (passphrase []byte, err error) {
	source := file(t)
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		c.faults["kms"] = func(int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				reply(w, map[string]any{"KeyId": keyARN, "Plaintext": []byte(plaintext)})
			}
		}
		s, _, e := c.client(t, config.AWS{}, nil).Open(t.Context(), config.Key{Source: source, KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
		passphrase, err = bytes.Clone(s.Bytes()), e
		s.Wipe()
	})
	return passphrase, err
}

func cryptsetup(t *testing.T, stdin string, args ...string) {
	t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cryptsetup %s: %v: %s", args[0], err, out)
	}
}

// TestFiles refuses files that hold no ciphertext.
func TestFiles(t *testing.T) {
	for name, row := range map[string]struct {
		size int // -1: missing
		says string
	}{
		"missing":   {-1, "no such file"},
		"empty":     {0, "the ciphertext is empty"},
		"too large": {6145, "longer than the 6144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ciphertext")
			if row.size >= 0 {
				if err := os.WriteFile(path, make([]byte, row.size), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			c := newCloud(t)
			_, _, err := c.client(t, config.AWS{}, nil).Open(t.Context(), config.Key{Source: source.MustParse("file:" + path), KMSKeys: []arn.ARN{arn.MustParse(keyARN)}})
			if err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(hintOf(err), "rebuild the initramfs") {
				t.Errorf("error = %v, hint = %q, want %q", err, hintOf(err), row.says)
			}
			if len(c.seen) > 0 {
				t.Errorf("requests = %v, want none", c.seen)
			}
		})
	}
}

// TestEndpoints asks for the host names in each partition.
func TestEndpoints(t *testing.T) {
	for _, row := range []struct {
		name    string
		keyARN  string // of the KMS key
		source  string
		aws     config.AWS
		hosts   string // of the source and of KMS, space separated
		request string // the source's
	}{
		{"aws", "arn:aws:kms:eu-central-1:111122223333:key/k", "s3://bucket/a/key", config.AWS{}, "bucket.s3.eu-central-1.amazonaws.com kms.eu-central-1.amazonaws.com", "/a/key"},
		{"China", "arn:aws-cn:kms:cn-north-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.cn-north-1.amazonaws.com.cn kms.cn-north-1.amazonaws.com.cn", "/key"},
		{"GovCloud", "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/k", "ssm:/key", config.AWS{}, "ssm.us-gov-west-1.amazonaws.com kms.us-gov-west-1.amazonaws.com", "GetParameter"},
		{"European sovereign cloud", "arn:aws-eusc:kms:eusc-de-east-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.eusc-de-east-1.amazonaws.eu kms.eusc-de-east-1.amazonaws.eu", "/key"},
		{"iso", "arn:aws-iso:kms:us-iso-east-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.us-iso-east-1.c2s.ic.gov kms.us-iso-east-1.c2s.ic.gov", "/key"},
		{"isob", "arn:aws-iso-b:kms:us-isob-east-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.us-isob-east-1.sc2s.sgov.gov kms.us-isob-east-1.sc2s.sgov.gov", "/key"},
		{"isoe", "arn:aws-iso-e:kms:eu-isoe-west-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.eu-isoe-west-1.cloud.adc-e.uk kms.eu-isoe-west-1.cloud.adc-e.uk", "/key"},
		{"isof", "arn:aws-iso-f:kms:us-isof-south-1:111122223333:key/k", "s3://bucket/key", config.AWS{}, "bucket.s3.us-isof-south-1.csp.hci.ic.gov kms.us-isof-south-1.csp.hci.ic.gov", "/key"},
		{"FIPS", keyARN, "s3://bucket/key", config.AWS{FIPS: true}, "bucket.s3-fips.us-east-1.amazonaws.com kms-fips.us-east-1.amazonaws.com", "/key"},
		{"dual-stack", keyARN, "s3://bucket/key", config.AWS{DualStack: true}, "bucket.s3.dualstack.us-east-1.amazonaws.com kms.us-east-1.api.aws", "/key"},
		{"FIPS and dual-stack", keyARN, "ssm:key", config.AWS{FIPS: true, DualStack: true}, "ssm-fips.us-east-1.api.aws kms-fips.us-east-1.api.aws", "GetParameter"},
		{"FIPS and dual-stack S3", keyARN, "s3://bucket/key", config.AWS{FIPS: true, DualStack: true}, "bucket.s3-fips.dualstack.us-east-1.amazonaws.com kms-fips.us-east-1.api.aws", "/key"},
		{"VPC endpoints", keyARN, "s3://bucket/key", config.AWS{Endpoint: map[string]string{"s3": "https://bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com", "kms": "https://vpce-1.kms.us-east-1.vpce.amazonaws.com/"}}, "bucket.vpce-1.s3.us-east-1.vpce.amazonaws.com vpce-1.kms.us-east-1.vpce.amazonaws.com", "/bucket/key"},
		{"dots in the bucket", keyARN, "s3://my.bucket/key", config.AWS{}, "s3.us-east-1.amazonaws.com kms.us-east-1.amazonaws.com", "/my.bucket/key"},
		{"odd key", keyARN, "s3://bucket/a b/ü+(1)//~", config.AWS{}, "bucket.s3.us-east-1.amazonaws.com kms.us-east-1.amazonaws.com", "/a%20b/%C3%BC%2B%281%29//~"},
		{"configured region", keyARN, "s3://bucket/key", config.AWS{Region: "eu-west-1"}, "bucket.s3.eu-west-1.amazonaws.com kms.us-east-1.amazonaws.com", "/key"},
		{"secret", keyARN, "secretsmanager:unlock/key", config.AWS{}, "secretsmanager.us-east-1.amazonaws.com kms.us-east-1.amazonaws.com", "GetSecretValue"},
		{"secret by ARN", keyARN, "secretsmanager:arn:aws:secretsmanager:eu-west-3:111122223333:secret:unlock/key-a1b2c3", config.AWS{DualStack: true}, "secretsmanager.eu-west-3.api.aws kms.us-east-1.api.aws", "GetSecretValue"},
		{"parameter by ARN", keyARN, "ssm:arn:aws:ssm:eu-west-3:111122223333:parameter/key", config.AWS{}, "ssm.eu-west-3.amazonaws.com kms.us-east-1.amazonaws.com", "GetParameter"},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				var hosts []string
				c.dial = func(_ int, host string) error { hosts = append(hosts, host); return nil }
				client := c.client(t, row.aws, nil)
				if _, _, err := client.Open(t.Context(), config.Key{Source: source.MustParse(row.source), KMSKeys: []arn.ARN{arn.MustParse(row.keyARN)}}); err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(hosts, " "); got != row.hosts {
					t.Errorf("hosts = %s, want %s", got, row.hosts)
				}
				if got := fmt.Sprint(c.seen); !strings.Contains(got, row.request+" kms Decrypt") {
					t.Errorf("requests = %s, want %s in it", got, row.request)
				}
			})
		})
	}
}
