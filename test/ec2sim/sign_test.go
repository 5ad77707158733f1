package ec2sim_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// sign signs req as the AWS SDK does.
func sign(t *testing.T, req *http.Request, creds aws.Credentials, service, region, body string, at time.Time) {
	t.Helper()
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if service == "s3" {
		req.Header.Set("X-Amz-Content-Sha256", hash)
	}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
	if err := signer.SignHTTP(t.Context(), creds, req, hash, service, region, at); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) s3(t *testing.T, creds aws.Credentials, method, url, body string, header ...string) answer {
	t.Helper()
	req := request(t, method, url, body, header...)
	sign(t, req, creds, "s3", "us-east-1", body, time.Now())
	return m.do(req)
}

func (m *machine) kms(t *testing.T, creds aws.Credentials, operation string, params map[string]any) answer {
	t.Helper()
	return m.json(t, creds, "kms", "TrentService."+operation, params)
}

func (m *machine) json(t *testing.T, creds aws.Credentials, service, target string, params map[string]any) answer {
	t.Helper()
	body, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	req := request(t, "POST", "https://"+service+".us-east-1.amazonaws.com/", string(body), "X-Amz-Target", target, "Content-Type", "application/x-amz-json-1.1")
	sign(t, req, creds, service, "us-east-1", string(body), time.Now())
	return m.do(req)
}
