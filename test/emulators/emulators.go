// Package emulators runs emulators of AWS that others wrote, for tests: versitygw is
// S3, amazon-ec2-metadata-mock is IMDS, moto is KMS, SSM, STS and IAM. What our own
// simulated EC2 says is held against them.
//
// moto is a Python program that neither Debian nor the Go module proxy has: where it
// is not installed, ec2sim stands in for it, and the test says so.
package emulators

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"unlock/test/ec2sim"
)

// AWS is what Start started.
type AWS struct {
	IMDS, S3, API string // URLs; API is KMS, SSM and the rest
	CA            string // PEM file with the authorities of S3 and API
	Moto          bool   // API is moto's

	cli []string // its environment
}

// Start runs the emulators on the loopback interface until the test ends. The
// administrator's credentials are those of ec2sim, and so are the role's, whose
// session the emulators know nothing of.
func Start(t *testing.T) *AWS {
	t.Helper()
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	a := &AWS{CA: cert, cli: append(os.Environ(), "AWS_ACCESS_KEY_ID="+ec2sim.AccessKey, "AWS_SECRET_ACCESS_KEY="+ec2sim.SecretKey,
		"AWS_DEFAULT_REGION=us-east-1", "AWS_CA_BUNDLE="+cert, "AWS_PAGER=")}
	a.metadata(t, dir)
	s3 := freeAddr(t)
	data, side := filepath.Join(dir, "data"), filepath.Join(dir, "sidecar")
	versions := filepath.Join(dir, "versions")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Mkdir(side, 0o700), os.Mkdir(versions, 0o700)); err != nil {
		t.Fatal(err)
	}
	start(t, s3, dir, "versitygw", "--access", ec2sim.AccessKey, "--secret", ec2sim.SecretKey, "--port", s3, "--cert", cert, "--key", key,
		"--quiet", "posix", "--sidecar", side, "--versioning-dir", versions, data)
	a.S3 = "https://" + s3
	a.api(t, dir, key)
	return a
}

// metadata starts IMDS. The mock's own credentials expired in 2020.
func (a *AWS) metadata(t *testing.T, dir string) {
	cfg, _ := json.Marshal(map[string]any{"metadata": map[string]any{"values": map[string]any{"iam-security-credentials": map[string]string{
		"code": "Success", "type": "AWS-HMAC", "lastupdated": "2020-04-02T18:50:40Z", "token": "mock",
		"accesskeyid": ec2sim.AccessKey, "secretaccesskey": ec2sim.SecretKey,
		"expiration": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}}}})
	file := filepath.Join(dir, "imds.json")
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	host, port, _ := net.SplitHostPort(addr)
	start(t, addr, dir, "ec2-metadata-mock", "--imdsv2", "--hostname", host, "--port", port, "--config-file", file)
	a.IMDS = "http://" + addr
}

// api starts moto if it is installed, else a simulated EC2, whose certificate
// authority is added to the file CA.
func (a *AWS) api(t *testing.T, dir, key string) {
	if _, err := exec.LookPath("moto_server"); err == nil {
		addr := freeAddr(t)
		host, port, _ := net.SplitHostPort(addr)
		start(t, addr, dir, "moto_server", "-H", host, "-p", port, "-c", a.CA, "-k", key)
		a.API, a.Moto = "https://"+addr, true
		return
	}
	t.Log("moto_server is not installed (pip install 'moto[server]'): KMS and SSM are ec2sim's here")
	cloud, err := ec2sim.New(ec2sim.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cloud.Close() })
	if a.API, err = cloud.Loopback(); err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(a.CA)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.CA, append(own, cloud.CA()...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// CLI runs the AWS CLI against the service in args[0] and returns what it printed, as text.
func (a *AWS) CLI(t *testing.T, args ...string) string {
	t.Helper()
	url := a.API
	if args[0] == "s3api" {
		url = a.S3
	}
	cmd := exec.Command("aws", append([]string{"--endpoint-url", url, "--output", "text"}, args...)...)
	cmd.Env = a.cli
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("aws %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// CreateKey makes a KMS key and returns its ARN.
func (a *AWS) CreateKey(t *testing.T) string {
	t.Helper()
	return a.CLI(t, "kms", "create-key", "--query", "KeyMetadata.Arn")
}
