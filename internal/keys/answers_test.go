package keys_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/hint"
	"unlock/internal/keys/source"
)

// A class says how many requests an answer costs that never gets better, within
// ten minutes, and whether the deadline ended it.
type class struct {
	name     string
	min, max int
	deadline bool
}

var (
	final   = class{"final", 1, 1, false}
	skewed  = class{"skewed", 3, 3, false}
	slow    = class{"slow", 6, 6, false}
	bounded = class{"bounded", 5, 5, false}   // IMDS: malformed
	refused = class{"refused", 12, 12, false} // IMDS: role cannot be assumed
	patient = class{"until the deadline", 20, 400, true}
)

// jsonError is a refusal in the JSON protocol of KMS and SSM.
func jsonError(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amzn-Requestid", "id-of-"+code)
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"__type":"%s","message":"said AWS"}`, code)
	}
}

// xmlError is a refusal of S3.
func xmlError(status int, code string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Request-Id", "id-of-"+code)
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>said AWS</Message></Error>`, code)
	}
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status); io.WriteString(w, body) }
}

// off is an answer by a clock that is two hours ahead.
func off(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
		h(w, r)
	}
}

// truncated promises more than it sends.
func truncated(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Length", "100")
	io.WriteString(w, `{"KeyId":`)
}

func reset(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// silent does not answer while the client listens.
func silent(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// at restricts an IMDS fault to one path.
func at(path string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			h(w, r)
		} else {
			imds(w, r)
		}
	}
}

const (
	tokenPath = "/latest/api/token"
	rolePath  = "/latest/meta-data/iam/security-credentials/"
	credsPath = rolePath + "demo"
)

// notFound is what a resolver that lacks a name says.
func notFound(_ int, host string) error {
	return &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

var answers = []struct {
	name    string
	service string           // whose requests are counted: "imds /path", "s3", "kms", "ssm", "secretsmanager" or "dial"
	answer  http.HandlerFunc // what it always answers
	dial    func(int, string) error
	leaf    func(*x509.Certificate)
	class   class
	says    string // part of the error
	hint    string // part of the hint
}{
	// IMDS
	{name: "disabled", service: "imds " + tokenPath, answer: at(tokenPath, text(403, "")), class: final, says: "403 Forbidden", hint: "modify-instance-metadata-options --http-endpoint enabled"},
	{name: "bad token request", service: "imds " + tokenPath, answer: at(tokenPath, text(400, "")), class: final, says: "400 Bad Request", hint: "aws.endpoint.imds"},
	{name: "no role", service: "imds " + rolePath, answer: at(rolePath, text(404, "")), class: patient, says: "404 Not Found", hint: "attach an instance profile"},
	{name: "no credentials of the role", service: "imds " + credsPath, answer: at(credsPath, text(404, "")), class: patient, says: "404 Not Found", hint: "attach an instance profile"},
	{name: "token never accepted", service: "imds " + tokenPath, answer: at(rolePath, text(401, "")), class: patient, says: "401 Unauthorized", hint: "refuses this program's requests"},
	{name: "imds throttles", service: "imds " + rolePath, answer: at(rolePath, text(429, "")), class: patient, says: "429", hint: "throttles this instance"},
	{name: "imds unavailable", service: "imds " + rolePath, answer: at(rolePath, text(503, "")), class: patient, says: "503", hint: "throttles this instance"},
	{name: "imds broken", service: "imds " + tokenPath, answer: at(tokenPath, text(500, "")), class: patient, says: "500", hint: "refuses this program's requests"},
	{name: "imds silent", service: "imds " + tokenPath, answer: at(tokenPath, silent), class: patient, says: "timeout", hint: "no usable answer from the metadata service"},
	{name: "imds truncates", service: "imds " + credsPath, answer: at(credsPath, truncated), class: patient, says: "unexpected EOF", hint: "no usable answer from the metadata service"},
	{name: "imds malformed", service: "imds " + credsPath, answer: at(credsPath, text(200, "<html>")), class: bounded, says: "malformed", hint: "something other than EC2's metadata service"},
	{name: "imds half the JSON", service: "imds " + credsPath, answer: at(credsPath, text(200, `{"Code":"Success","Acc`)), class: bounded, says: "malformed", hint: "something other than EC2's metadata service"},
	{name: "imds incomplete", service: "imds " + credsPath, answer: at(credsPath, text(200, `{"Code":"Success","AccessKeyId":"A"}`)), class: bounded, says: "incomplete", hint: "something other than EC2's metadata service"},
	{name: "imds endless", service: "imds " + credsPath, answer: at(credsPath, text(200, strings.Repeat("x", 1<<20))), class: bounded, says: "too long", hint: "something other than EC2's metadata service"},
	{name: "role with a slash", service: "imds " + rolePath, answer: at(rolePath, text(200, "../user-data")), class: bounded, says: "not the name of a role", hint: "something other than EC2's metadata service"},
	{name: "redirected", service: "imds " + rolePath, answer: at(rolePath, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://example.com/", 302) }), class: final, says: "302 Found", hint: "refuses this program's requests"},
	{name: "role cannot be assumed", service: "imds " + credsPath, answer: at(credsPath, text(200, `{"Code":"AssumeRoleUnauthorizedAccess","Message":"EC2 cannot assume the role demo"}`)), class: refused, says: "AssumeRoleUnauthorizedAccess", hint: "let ec2.amazonaws.com assume role demo"},
	{name: "expired credentials", service: "imds " + credsPath, answer: at(credsPath, func(w http.ResponseWriter, r *http.Request) { reply(w, credentials(-time.Minute)) }), class: patient, says: "expired 1m0s ago", hint: "detach and attach the instance profile"},

	// S3
	{name: "denied", service: "s3", answer: xmlError(403, "AccessDenied"), class: slow, says: "AccessDenied: said AWS (HTTP 403, request id-of-AccessDenied)", hint: "allow s3:GetObject on s3://bucket/key to role demo (S3 may say the same of an object that does not exist)"},
	{name: "no key", service: "s3", answer: xmlError(404, "NoSuchKey"), class: slow, says: "NoSuchKey", hint: "put the ciphertext at s3://bucket/key"},
	{name: "no bucket", service: "s3", answer: xmlError(404, "NoSuchBucket"), class: slow, says: "NoSuchBucket", hint: "bucket of s3://bucket/key does not exist"},
	{name: "no version", service: "s3", answer: xmlError(404, "NoSuchVersion"), class: slow, says: "NoSuchVersion", hint: "is gone: check version_id"},
	{name: "slow down", service: "s3", answer: xmlError(503, "SlowDown"), class: patient, says: "SlowDown", hint: "S3 still throttles after all tries"},
	{name: "internal error", service: "s3", answer: xmlError(500, "InternalError"), class: patient, says: "InternalError", hint: "S3 in us-east-1 is disturbed"},
	{name: "unavailable without a body", service: "s3", answer: text(503, ""), class: patient, says: "HTTP 503", hint: "S3 in us-east-1 is disturbed"},
	{name: "bad gateway", service: "s3", answer: text(502, "<html>"), class: patient, says: "HTTP 502", hint: "S3 in us-east-1 is disturbed"},
	{name: "too many requests", service: "s3", answer: text(429, ""), class: patient, says: "HTTP 429", hint: "S3 still throttles"},
	{name: "clock is wrong for ever", service: "s3", answer: off(xmlError(403, "RequestTimeTooSkewed")), class: skewed, says: "RequestTimeTooSkewed", hint: "set the instance's clock"},
	{name: "unknown access key", service: "s3", answer: xmlError(403, "InvalidAccessKeyId"), class: slow, says: "InvalidAccessKeyId", hint: "does not accept the credentials of role demo"},
	{name: "expired token", service: "s3", answer: xmlError(400, "ExpiredToken"), class: slow, says: "ExpiredToken", hint: "does not accept the credentials of role demo"},
	{name: "bad signature", service: "s3", answer: xmlError(403, "SignatureDoesNotMatch"), class: slow, says: "SignatureDoesNotMatch", hint: "does not accept the signature"},
	{name: "moved nowhere", service: "s3", answer: xmlError(301, "PermanentRedirect"), class: final, says: "PermanentRedirect", hint: "set aws.region to the bucket's region"},
	{name: "moved to nonsense", service: "s3", answer: xmlError(301, "PermanentRedirect", "X-Amz-Bucket-Region", "evil.example.com/"), class: final, says: "PermanentRedirect", hint: "set aws.region to the bucket's region"},
	{name: "archived", service: "s3", answer: xmlError(403, "InvalidObjectState"), class: final, says: "InvalidObjectState", hint: "is archived"},
	{name: "forbidden by somebody", service: "s3", answer: text(403, "<html>"), class: slow, says: "HTTP 403", hint: "allow s3:GetObject"},
	{name: "unheard of", service: "s3", answer: xmlError(400, "Unheard"), class: final, says: "Unheard", hint: "S3 does not take this request"},
	{name: "empty object", service: "s3", answer: text(200, ""), class: final, says: "the ciphertext is empty", hint: "put the output of aws kms encrypt"},
	{name: "object too large", service: "s3", answer: text(200, strings.Repeat("x", 6145)), class: final, says: "longer than the 6144 bytes", hint: "put the output of aws kms encrypt"},
	{name: "endless object", service: "s3", answer: text(200, strings.Repeat("x", 1<<20)), class: final, says: "too long", hint: "put the output of aws kms encrypt at s3://"},
	{name: "truncated object", service: "s3", answer: truncated, class: patient, says: "unexpected EOF", hint: "breaks off its answers"},
	{name: "slow object", service: "s3", answer: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}, class: patient, says: "deadline exceeded", hint: "no answer from bucket.s3.us-east-1.amazonaws.com"},
	{name: "connection reset", service: "s3", answer: reset, class: patient, says: "EOF", hint: "cannot talk to bucket.s3.us-east-1.amazonaws.com"},

	// SSM
	{name: "no parameter", service: "ssm", answer: jsonError(400, "ParameterNotFound"), class: slow, says: "ParameterNotFound", hint: "ssm:/unlock/key does not exist in us-east-1"},
	{name: "parameter denied", service: "ssm", answer: jsonError(400, "AccessDeniedException"), class: slow, says: "AccessDeniedException", hint: "allow ssm:GetParameter on ssm:/unlock/key to role demo"},
	{name: "ssm throttles", service: "ssm", answer: jsonError(400, "ThrottlingException"), class: patient, says: "ThrottlingException", hint: "SSM still throttles"},
	{name: "ssm broken", service: "ssm", answer: jsonError(500, "InternalServerError"), class: patient, says: "InternalServerError", hint: "SSM in us-east-1 is disturbed"},
	{name: "secure string", service: "ssm", answer: text(200, `{"Parameter":{"Type":"SecureString","Value":"AQ=="}}`), class: final, says: "SecureString", hint: "base64 in a parameter of type String"},
	{name: "not base64", service: "ssm", answer: text(200, `{"Parameter":{"Type":"String","Value":"plain"}}`), class: final, says: "not base64", hint: "base64 in a parameter of type String"},
	{name: "not JSON", service: "ssm", answer: text(200, `<html>`), class: final, says: "decoding the answer", hint: "something other than AWS answers at ssm.us-east-1.amazonaws.com"},

	// Secrets Manager
	{name: "no secret", service: "secretsmanager", answer: jsonError(400, "ResourceNotFoundException"), class: slow, says: "ResourceNotFoundException", hint: "secretsmanager:unlock/key does not exist in us-east-1, or has no such version"},
	{name: "secret denied", service: "secretsmanager", answer: jsonError(400, "AccessDeniedException"), class: slow, says: "AccessDeniedException", hint: "allow secretsmanager:GetSecretValue on secretsmanager:unlock/key to role demo"},
	{name: "secret of another key", service: "secretsmanager", answer: jsonError(400, "DecryptionFailure"), class: slow, says: "DecryptionFailure", hint: "let role demo use the KMS key under which Secrets Manager itself keeps"},
	{name: "deleted secret", service: "secretsmanager", answer: jsonError(400, "InvalidRequestException"), class: final, says: "InvalidRequestException", hint: "is scheduled for deletion"},
	{name: "secretsmanager throttles", service: "secretsmanager", answer: jsonError(400, "ThrottlingException"), class: patient, says: "ThrottlingException", hint: "Secrets Manager still throttles"},
	{name: "secretsmanager broken", service: "secretsmanager", answer: jsonError(500, "InternalServiceError"), class: patient, says: "InternalServiceError", hint: "Secrets Manager in us-east-1 is disturbed"},
	{name: "secret without a value", service: "secretsmanager", answer: text(200, `{"VersionId":"v"}`), class: final, says: "the ciphertext is empty", hint: "put the output of aws kms encrypt at secretsmanager:unlock/key: as SecretBinary, or in base64 as SecretString"},
	{name: "secret of plain text", service: "secretsmanager", answer: text(200, `{"SecretString":"{\"password\":\"x\"}"}`), class: final, says: "not base64", hint: "in base64 as SecretString"},
	{name: "two secrets", service: "secretsmanager", answer: text(200, `{"SecretString":"AQ==","SecretBinary":"Ag=="}`), class: final, says: "a binary and a string", hint: "as SecretBinary, or"},
	{name: "secret too long", service: "secretsmanager", answer: text(200, `{"SecretBinary":"`+strings.Repeat("AAAA", 2049)+`"}`), class: final, says: "longer than the 6144 bytes", hint: "put the output of aws kms encrypt"},
	{name: "no secret at all", service: "secretsmanager", answer: text(200, `<html>`), class: final, says: "decoding the answer", hint: "something other than AWS answers at secretsmanager.us-east-1.amazonaws.com"},

	// KMS
	{name: "decrypt denied", service: "kms", answer: jsonError(400, "AccessDeniedException"), class: slow, says: "decrypting with KMS: AccessDeniedException: said AWS (HTTP 400, request id-of-AccessDeniedException)", hint: "allow kms:Decrypt on " + keyARN + " to role demo with context purpose=secretfs"},
	{name: "no such key", service: "kms", answer: jsonError(400, "NotFoundException"), class: slow, says: "NotFoundException", hint: keyARN + " does not exist in us-east-1"},
	{name: "disabled key", service: "kms", answer: jsonError(400, "DisabledException"), class: final, says: "DisabledException", hint: "enable " + keyARN},
	{name: "pending deletion", service: "kms", answer: jsonError(400, "KMSInvalidStateException"), class: final, says: "KMSInvalidStateException", hint: "pending deletion"},
	{name: "invalid ciphertext", service: "kms", answer: jsonError(400, "InvalidCiphertextException"), class: final, says: "InvalidCiphertextException", hint: "not encrypted under " + keyARN + " with context purpose=secretfs"},
	{name: "another key's ciphertext", service: "kms", answer: jsonError(400, "IncorrectKeyException"), class: final, says: "IncorrectKeyException", hint: "the ciphertext is under another key than " + keyARN},
	{name: "key for signing", service: "kms", answer: jsonError(400, "InvalidKeyUsageException"), class: final, says: "InvalidKeyUsageException", hint: "must be a symmetric encryption key"},
	{name: "validation", service: "kms", answer: jsonError(400, "ValidationException"), class: final, says: "ValidationException", hint: "KMS does not take this request"},
	{name: "kms throttles", service: "kms", answer: jsonError(400, "ThrottlingException"), class: patient, says: "ThrottlingException", hint: "raise the account's request quota"},
	{name: "kms internal", service: "kms", answer: jsonError(500, "KMSInternalException"), class: patient, says: "KMSInternalException", hint: "KMS in us-east-1 is disturbed"},
	{name: "dependency timeout", service: "kms", answer: jsonError(500, "DependencyTimeoutException"), class: patient, says: "DependencyTimeoutException", hint: "KMS in us-east-1 is disturbed"},
	{name: "key unavailable", service: "kms", answer: jsonError(500, "KeyUnavailableException"), class: patient, says: "KeyUnavailableException", hint: "KMS in us-east-1 is disturbed"},
	{name: "kms unavailable without a body", service: "kms", answer: text(503, ""), class: patient, says: "HTTP 503", hint: "KMS in us-east-1 is disturbed"},
	{name: "unrecognized client", service: "kms", answer: jsonError(400, "UnrecognizedClientException"), class: slow, says: "UnrecognizedClientException", hint: "does not accept the credentials of role demo"},
	{name: "expired session", service: "kms", answer: jsonError(400, "ExpiredTokenException"), class: slow, says: "ExpiredTokenException", hint: "does not accept the credentials of role demo"},
	{name: "signature", service: "kms", answer: jsonError(400, "InvalidSignatureException"), class: slow, says: "InvalidSignatureException", hint: "KMS does not accept the signature"},
	{name: "signature of a wrong clock", service: "kms", answer: off(jsonError(400, "InvalidSignatureException")), class: skewed, says: "InvalidSignatureException", hint: "set the instance's clock"},
	{name: "other key used", service: "kms", answer: text(200, `{"KeyId":"`+otherARN+`","Plaintext":"eHh4eHh4eHg="}`), class: final, says: "instead of " + keyARN, hint: "did not use the key it was told to"},
	{name: "no plaintext", service: "kms", answer: text(200, `{"KeyId":"`+keyARN+`"}`), class: final, says: "the plaintext is empty", hint: "encrypt a passphrase"},
	{name: "kms malformed", service: "kms", answer: text(200, `<html>`), class: final, says: "decrypting with KMS", hint: "something other than AWS answers at kms.us-east-1.amazonaws.com"},
	{name: "kms truncated", service: "kms", answer: truncated, class: patient, says: "unexpected EOF", hint: "breaks off its answers"},
	{name: "kms resets", service: "kms", answer: reset, class: patient, says: "EOF", hint: "cannot talk to kms.us-east-1.amazonaws.com"},
	{name: "kms silent", service: "kms", answer: silent, class: patient, says: "deadline exceeded", hint: "no answer from kms.us-east-1.amazonaws.com"},
	{name: "kms endless", service: "kms", answer: text(200, `{"KeyId":"`+strings.Repeat("x", 1<<20)), class: final, says: "too long", hint: "something other than AWS"},

	// the way there
	{name: "no such host", service: "dial", dial: notFound, class: patient, says: "no such host", hint: "kms.us-east-1.amazonaws.com does not resolve"},
	{name: "resolver silent", service: "dial", dial: func(_ int, host string) error {
		return &net.DNSError{Err: "i/o timeout", Name: host, IsTimeout: true}
	}, class: patient, says: "i/o timeout", hint: "kms.us-east-1.amazonaws.com does not resolve"},
	{name: "refused", service: "dial", dial: func(int, string) error { return syscall.ECONNREFUSED }, class: patient, says: "connection refused", hint: "cannot talk to kms.us-east-1.amazonaws.com"},
	{name: "unreachable", service: "dial", dial: func(int, string) error { return syscall.ENETUNREACH }, class: patient, says: "network is unreachable", hint: "check the route"},
	{name: "alert", service: "dial", dial: func(int, string) error { return tls.AlertError(40) }, class: slow, says: "handshake failure", hint: "no TLS connection to kms.us-east-1.amazonaws.com"},
	{name: "expired certificate", service: "dial", dial: func(int, string) error { return nil }, leaf: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, class: final, says: "expired", hint: "check the instance's clock"},
	{name: "certificate of another", service: "dial", dial: func(int, string) error { return nil }, leaf: func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} }, class: final, says: "example.com", hint: "is not its own"},
}

// ask opens the key whose source brings the service into play.
func ask(ctx context.Context, t *testing.T, c *cloud, service string) ([]aws.Call, error) {
	k := config.Key{KMSKeys: []arn.ARN{arn.MustParse(keyARN)}, Context: map[string]string{"purpose": "secretfs"}}
	switch service {
	case "s3":
		k.Source = source.MustParse("s3://bucket/key")
	case "ssm":
		k.Source = source.MustParse("ssm:/unlock/key")
	case "secretsmanager":
		k.Source = source.MustParse("secretsmanager:unlock/key")
	default:
		k.Source = file(t)
	}
	s, calls, err := c.client(t, config.AWS{}, nil).Open(ctx, k)
	if err == nil && string(s.Bytes()) != password {
		t.Errorf("passphrase = %q, want %q", s.Bytes(), password)
	}
	s.Wipe()
	return calls, err
}

// TestAnswers has each service give one answer for ever, and checks how often it
// is asked and what the operator is told; then has it recover after the first
// answer, where trying again is what the class says.
func TestAnswers(t *testing.T) {
	for _, row := range answers {
		service, _, _ := strings.Cut(row.service, " ")
		t.Run(service+"/"+row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.faults[service], c.dial, c.leaf = func(int) http.HandlerFunc { return row.answer }, row.dial, row.leaf
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				calls, err := ask(ctx, t, c, service)
				if err == nil {
					t.Fatal("no error")
				}
				tries := c.count(row.service)
				if service == "dial" {
					tries = c.dials
				}
				if tries < row.class.min || tries > row.class.max {
					t.Errorf("%d tries, want %d to %d (%s)", tries, row.class.min, row.class.max, row.class.name)
				}
				if got := errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil; got != row.class.deadline {
					t.Errorf("ended by the deadline: %v, want %v", got, row.class.deadline)
				}
				if !strings.Contains(err.Error(), row.says) {
					t.Errorf("error = %q, want %q in it", err, row.says)
				}
				var failed *aws.Error
				if !errors.As(err, &failed) || !strings.Contains(failed.Hint, row.hint) || row.hint == "" {
					t.Errorf("hint = %q, want %q in it", hintOf(err), row.hint)
				}
				if strings.ContainsAny(hintOf(err), "{}\n") {
					t.Errorf("hint = %q, want one line, all filled in", hintOf(err))
				}
				if strings.Contains(err.Error(), "request id-of") && (len(calls) == 0 || calls[len(calls)-1].RequestID == "") {
					t.Errorf("calls = %+v, want the refused one", calls)
				}
			})
			if row.class == final {
				return
			}
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				c.faults[service] = func(n int) http.HandlerFunc {
					if c.count(row.service) > 1 {
						return nil
					}
					return row.answer
				}
				if row.dial != nil {
					c.dial = func(n int, host string) error {
						if n > 1 {
							return nil
						}
						return row.dial(n, host)
					}
				}
				if _, err := ask(t.Context(), t, c, service); err != nil {
					t.Errorf("after one such answer: %v", err)
				}
			})
		})
	}
}

func hintOf(err error) string { return hint.Of(err) }
