package ec2sim_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"unlock/test/ec2sim"
)

var admin = aws.Credentials{AccessKeyID: ec2sim.AccessKey, SecretAccessKey: ec2sim.SecretKey}

// TestSignaturesOfTheSDK holds the verifier against what the AWS SDK signs.
func TestSignaturesOfTheSDK(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	for name, path := range map[string]string{
		"plain":    "key",
		"nested":   "a/b//c/../d",
		"reserved": "a%20b%2Bc%3D%26e%3Ff%25g~h%21i%27j%28k%29%2A",
		"unicode":  "schl%C3%BCssel",
	} {
		t.Run("S3 path "+name, func(t *testing.T) {
			a := m.s3(t, admin, "GET", "https://bucket.s3.us-east-1.amazonaws.com/"+path+"?versionId=a%2Fb%20c&x-id=GetObject", "")
			if a.status != 404 || !strings.Contains(a.body, "<Code>NoSuchBucket</Code>") {
				t.Errorf("GET = %+v", a)
			}
		})
	}
	t.Run("S3 path with an unencoded plus sign", func(t *testing.T) {
		// S3 encodes what it decoded: a client must sign and send %2B.
		if a := m.s3(t, admin, "GET", "https://bucket.s3.us-east-1.amazonaws.com/a+b", ""); !strings.Contains(a.body, "SignatureDoesNotMatch") {
			t.Errorf("GET = %+v", a)
		}
	})
	t.Run("S3 unsigned payload", func(t *testing.T) {
		m.cloud.CreateBucket("unsigned", "us-east-1")
		req := request(t, "PUT", "https://s3.us-east-1.amazonaws.com/unsigned/key", "data", "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
		signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
		if err := signer.SignHTTP(t.Context(), admin, req, "UNSIGNED-PAYLOAD", "s3", "us-east-1", time.Now()); err != nil {
			t.Fatal(err)
		}
		if a := m.do(req); a.status != 200 {
			t.Errorf("PUT = %+v", a)
		}
	})
	t.Run("KMS path and headers", func(t *testing.T) {
		req := request(t, "POST", "https://kms.us-east-1.amazonaws.com/a%20b/c?z=1&a=%C3%BC&a=", "{}", "X-Amz-Target", "TrentService.DescribeKey", "X-Spaces", "  a   b  ")
		req.Header.Add("X-Spaces", "c")
		sign(t, req, admin, "kms", "us-east-1", "{}", time.Now())
		if a := m.do(req); !strings.Contains(a.body, "NotFoundException") {
			t.Errorf("DescribeKey = %+v, want a request that was let in", a)
		}
	})
}

func TestRefusedSignatures(t *testing.T) {
	t.Parallel()
	m := newMachine(t, ec2sim.Config{})
	m.cloud.PutObject("bucket", "key", []byte("data"))
	role, newer := m.credentials(t), aws.Credentials{}
	if err := m.cloud.SetFaults("creds-expired"); err != nil {
		t.Fatal(err)
	}
	expired := m.credentials(t)
	if err := m.cloud.SetFaults(); err != nil {
		t.Fatal(err)
	}
	newer = role
	newer.SessionToken = strings.ToUpper(role.SessionToken)
	noToken := role
	noToken.SessionToken = ""
	unknown := aws.Credentials{AccessKeyID: "AKIDUNKNOWN", SecretAccessKey: "x"}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	authorization := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			h := r.Header.Get("Authorization")
			r.Header.Set("Authorization", strings.Replace(h, old, new, 1))
		}
	}
	changeLast := func(r *http.Request) {
		h := []byte(r.Header.Get("Authorization"))
		h[len(h)-1] ^= 1
		r.Header.Set("Authorization", string(h))
	}
	const (
		mismatch = "InvalidSignatureException"
		noMatch  = "SignatureDoesNotMatch"
	)
	for name, tt := range map[string]struct {
		creds   aws.Credentials
		age     time.Duration // of the signature
		region  string        // signed for; default us-east-1
		service string        // signed for; default the right one
		change  func(*http.Request)
		kms, s3 string // "": let in
	}{
		"untouched":              {creds: role},
		"four minutes old":       {creds: role, age: 4 * time.Minute},
		"six minutes old":        {creds: role, age: 6 * time.Minute, kms: mismatch},
		"six minutes ahead":      {creds: role, age: -6 * time.Minute, kms: mismatch},
		"sixteen minutes old":    {creds: role, age: 16 * time.Minute, kms: mismatch, s3: "RequestTimeTooSkewed"},
		"no signature":           {creds: role, change: func(r *http.Request) { r.Header.Del("Authorization") }, kms: "MissingAuthenticationTokenException", s3: "AccessDenied"},
		"signature missing":      {creds: role, change: authorization("Signature=", "Sig="), kms: "IncompleteSignatureException", s3: "AuthorizationHeaderMalformed"},
		"one digit of signature": {creds: role, change: changeLast, kms: mismatch, s3: noMatch},
		"host not signed":        {creds: role, change: authorization("host;", ""), kms: "IncompleteSignatureException", s3: "AuthorizationHeaderMalformed"},
		"header changed":         {creds: role, change: header("X-Custom", "v2"), kms: mismatch, s3: noMatch},
		"header added":           {creds: role, change: header("X-Amz-Acl", "private"), kms: mismatch, s3: "AccessDenied"},
		"query changed":          {creds: role, change: func(r *http.Request) { r.URL.RawQuery += "&c=d" }, kms: mismatch, s3: noMatch},
		"path changed":           {creds: role, change: func(r *http.Request) { r.URL.Path += "x" }, kms: mismatch, s3: noMatch},
		"date changed":           {creds: role, change: header("X-Amz-Date", time.Now().UTC().Add(time.Minute).Format("20060102T150405Z")), kms: mismatch, s3: noMatch},
		"scope of another day":   {creds: role, change: authorization(time.Now().UTC().Format("/20060102/"), "/20200101/"), kms: "Date in Credential scope does not match", s3: "AuthorizationHeaderMalformed"},
		"other region":           {creds: role, region: "eu-west-1", kms: mismatch, s3: "AuthorizationHeaderMalformed"},
		"other service":          {creds: role, service: "ssm", kms: mismatch, s3: "AuthorizationHeaderMalformed"},
		"unknown access key":     {creds: unknown, kms: "UnrecognizedClientException", s3: "InvalidAccessKeyId"},
		"no session token":       {creds: noToken, kms: "UnrecognizedClientException", s3: "InvalidAccessKeyId"},
		"wrong session token":    {creds: newer, kms: "UnrecognizedClientException", s3: "InvalidToken"},
		"expired session":        {creds: expired, kms: "ExpiredTokenException", s3: "ExpiredToken"},
	} {
		for service, want := range map[string]string{"kms": tt.kms, "s3": tt.s3} {
			t.Run(service+" "+name, func(t *testing.T) {
				req := request(t, "POST", "https://kms.us-east-1.amazonaws.com/?a=b", "{}", "X-Amz-Target", "TrentService.DescribeKey")
				body, letIn := "{}", "NotFoundException"
				if service == "s3" {
					req, body, letIn = request(t, "GET", "https://bucket.s3.us-east-1.amazonaws.com/key?a=b", ""), "", "data"
				}
				req.Header.Set("X-Custom", "v1")
				region, signedService := "us-east-1", service
				if tt.region != "" {
					region = tt.region
				}
				if tt.service != "" {
					signedService = tt.service
				}
				if service == "s3" {
					req.Header.Set("X-Amz-Content-Sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
				}
				sign(t, req, tt.creds, signedService, region, body, time.Now().Add(-tt.age))
				if tt.change != nil {
					tt.change(req)
				}
				a := m.do(req)
				if want == "" {
					want = letIn
				}
				if !strings.Contains(a.body, want) {
					t.Errorf("got %d %s, want %s", a.status, a.body, want)
				}
			})
		}
	}
	t.Run("kms body changed", func(t *testing.T) {
		req := request(t, "POST", "https://kms.us-east-1.amazonaws.com/", `{"KeyId":"b"}`, "X-Amz-Target", "TrentService.DescribeKey")
		sign(t, req, admin, "kms", "us-east-1", `{"KeyId":"a"}`, time.Now())
		if a := m.do(req); !strings.Contains(a.body, mismatch) {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("s3 body changed", func(t *testing.T) {
		req := request(t, "PUT", "https://bucket.s3.us-east-1.amazonaws.com/key", "datb")
		sign(t, req, admin, "s3", "us-east-1", "data", time.Now())
		if a := m.do(req); !strings.Contains(a.body, "XAmzContentSHA256Mismatch") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("s3 payload hash missing", func(t *testing.T) {
		req := request(t, "GET", "https://bucket.s3.us-east-1.amazonaws.com/key", "")
		sign(t, req, admin, "s3", "us-east-1", "", time.Now())
		req.Header.Del("X-Amz-Content-Sha256")
		if a := m.do(req); !strings.Contains(a.body, "Missing required header") {
			t.Errorf("got %+v", a)
		}
	})
}
