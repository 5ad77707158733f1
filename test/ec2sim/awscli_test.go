package ec2sim_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"unlock/test/ec2sim"
	"unlock/test/program"
)

// awsCLI is the AWS CLI with the Loopback as its endpoint.
type awsCLI struct {
	t   *testing.T
	dir string
	url string
	env []string
}

func newAWSCLI(t *testing.T, c *ec2sim.Cloud) *awsCLI {
	t.Helper()
	program.Need(t, "aws")
	url, err := c.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, c.CA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &awsCLI{t, dir, url, []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "AWS_CA_BUNDLE=" + ca, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_ACCESS_KEY_ID=" + ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY=" + ec2sim.SecretKey, "AWS_MAX_ATTEMPTS=1",
	}}
}

// run runs aws and returns what it printed on both outputs. Some versions put into each
// refusal how often they tried again, where AWS_MAX_ATTEMPTS lets them ask once: that is
// not of the refusal, and left out.
func (a *awsCLI) run(args ...string) (string, error) {
	cmd := exec.CommandContext(a.t.Context(), "aws", append([]string{"--endpoint-url", a.url, "--output", "text"}, args...)...)
	cmd.Env, cmd.Dir = a.env, a.dir
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(strings.ReplaceAll(string(out), " (reached max retries: 0)", "")), err
}

func (a *awsCLI) must(args ...string) string {
	a.t.Helper()
	out, err := a.run(args...)
	if err != nil {
		a.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (a *awsCLI) file(name, content string) string {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), []byte(content), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return name
}

// TestAWSCLI has the AWS CLI judge the endpoints; a short run asks KMS to encrypt, decrypt
// and refuse.
func TestAWSCLI(t *testing.T) {
	t.Parallel()
	c := newCloud(t, ec2sim.Config{})
	key, other := c.CreateKey(), c.CreateKey()
	c.CreateAlias("alias/unlock", key)
	c.PutSecureParameter("/unlock/secure", "secret of the parameter", key)
	c.CreateBucket("a-bucket", "us-east-1")
	a := newAWSCLI(t, c)
	const context = "purpose=test,set=1"
	a.file("secret", "correct horse battery staple\n")

	blob, err := base64.StdEncoding.DecodeString(a.must("kms", "encrypt", "--key-id", "alias/unlock", "--plaintext", "fileb://secret", "--encryption-context", context, "--query", "CiphertextBlob"))
	if err != nil {
		t.Fatal(err)
	}
	a.file("blob", string(blob))
	decrypt := []string{"kms", "decrypt", "--ciphertext-blob", "fileb://blob", "--query", "Plaintext"}
	plain, _ := base64.StdEncoding.DecodeString(a.must(append(decrypt, "--encryption-context", context)...))
	if string(plain) != "correct horse battery staple\n" {
		t.Errorf("decrypt = %q", plain)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"context wrong": {[]string{"--encryption-context", "purpose=test,set=2"}, "(InvalidCiphertextException) when calling the Decrypt operation"},
		"other key":     {[]string{"--encryption-context", context, "--key-id", other}, "(IncorrectKeyException) when calling the Decrypt operation: The key ID in the request does not identify a CMK that can perform this operation."},
	} {
		if out, err := a.run(append(decrypt, tt.args...)...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("decrypt, %s: %v, %s, want %s", name, err, out, tt.want)
		}
	}

	if testing.Short() {
		return
	}

	dataKey := strings.Fields(a.must("kms", "generate-data-key", "--key-id", key, "--key-spec", "AES_256", "--query", "[Plaintext,CiphertextBlob,KeyId]"))
	blob, _ = base64.StdEncoding.DecodeString(dataKey[1])
	a.file("blob", string(blob))
	if got := a.must(decrypt...); got != dataKey[0] || dataKey[2] != key {
		t.Errorf("the data key %q decrypts to %s", dataKey, got)
	}
	sealed := a.must("kms", "generate-data-key-without-plaintext", "--key-id", key, "--number-of-bytes", "64", "--query", "CiphertextBlob")
	blob, _ = base64.StdEncoding.DecodeString(sealed)
	a.file("blob", string(blob))
	again := a.must("kms", "re-encrypt", "--ciphertext-blob", "fileb://blob", "--destination-key-id", other, "--query", "[KeyId,SourceKeyId]")
	if again != other+"\t"+key {
		t.Errorf("re-encrypt = %s", again)
	}
	if got := a.must("kms", "describe-key", "--key-id", "alias/unlock", "--query", "KeyMetadata.[Arn,KeyState,Enabled]"); got != key+"\tEnabled\tTrue" {
		t.Errorf("describe-key = %s", got)
	}

	object := strings.Repeat("ciphertext\x00\xff", 5000)
	a.file("object", object)
	a.must("s3api", "put-object", "--bucket", "a-bucket", "--key", "dir/a key", "--body", "object")
	a.must("s3api", "get-object", "--bucket", "a-bucket", "--key", "dir/a key", "copy")
	if got, err := os.ReadFile(filepath.Join(a.dir, "copy")); err != nil || !bytes.Equal(got, []byte(object)) {
		t.Errorf("get-object differs from what was put: %v", err)
	}
	a.file("object", "newer")
	a.must("s3api", "put-object", "--bucket", "a-bucket", "--key", "dir/a key", "--body", "object")
	head := a.must("s3api", "head-object", "--bucket", "a-bucket", "--key", "dir/a key", "--version-id", c.Versions("a-bucket", "dir/a key")[0], "--query", "[ContentLength,ServerSideEncryption]")
	if head != "60000\tAES256" {
		t.Errorf("head-object of the first version = %s", head)
	}
	if out, err := a.run("s3api", "get-object", "--bucket", "a-bucket", "--key", "absent", "copy"); err == nil || !strings.Contains(out, "(NoSuchKey)") {
		t.Errorf("get-object of what is absent: %v, %s", err, out)
	}

	got := a.must("ssm", "get-parameter", "--name", "/unlock/secure", "--with-decryption", "--query", "Parameter.[Name,Type,Value,Version]")
	if want := "/unlock/secure\tSecureString\tsecret of the parameter\t1"; got != want {
		t.Errorf("get-parameter = %s, want %s", got, want)
	}
	a.env = append(a.env, "AWS_SECRET_ACCESS_KEY=wrong")
	if out, err := a.run("kms", "describe-key", "--key-id", key); err == nil || !strings.Contains(out, "request signature we calculated does not match") {
		t.Errorf("describe-key with the wrong secret key: %v, %s", err, out)
	}
}
