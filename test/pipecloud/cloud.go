// Package pipecloud is as much of AWS as one boot asks for, over pipes instead of a
// network, so that tests run in bubbles of testing/synctest. Package ec2sim simulates
// EC2 in full.
package pipecloud

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"unlock/test/attested"
)

const (
	KeyARN     = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	Passphrase = "correct horse battery staple kW7-pZ3_xN9"
)

// Ciphertext stands for what KMS made of Passphrase. It is all that S3 holds, whatever
// the bucket and the key.
func Ciphertext() []byte {
	return append([]byte{1, 2, 2, 0}, bytes.Repeat([]byte("ciphertext "), 16)...)
}

// Cloud answers as AWS does.
type Cloud struct {
	*Authority
	// Answer, if not nil, answers in place of AWS: service is "imds", "s3" or "kms". A
	// status of 0 leaves the answer to AWS, a negative one never answers.
	Answer func(service string, r *http.Request) (status int, body string)
	// Mutate, if not nil, changes an answer, with its header, on its way.
	Mutate func(service string, answer []byte) []byte

	wait sync.WaitGroup
}

// Authority has a certificate for all of AWS.
type Authority struct {
	cert tls.Certificate
}

// NewAuthority makes a certificate. Fake time begins in 2000.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC),
		DNSNames: []string{"*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &Authority{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

// PEM is the certificate, for ca_bundle.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Certificate[0]})
}

// Dial connects to a service by its name, or to IMDS.
func (c *Cloud) Dial(_ context.Context, _, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	service := "imds"
	switch {
	case strings.HasPrefix(host, "kms."):
		service = "kms"
	case strings.Contains(host, "s3."):
		service = "s3"
	case host != "169.254.169.254":
		return nil, fmt.Errorf("no host %q", host)
	}
	here, conn := bufferedPipe(&c.wait)
	if service != "imds" {
		conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c.cert}})
	}
	c.wait.Go(func() {
		defer conn.Close()
		c.serve(service, conn)
	})
	return here, nil
}

// Wait waits until all connections have ended.
func (c *Cloud) Wait() { c.wait.Wait() }

// serve answers one request.
func (c *Cloud) serve(service string, conn net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	status, kind, text := c.answer(service, r, body)
	if status < 0 {
		_, _ = conn.Read(make([]byte, 1)) // until the client hangs up
		return
	}
	raw := fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\nx-amzn-RequestId: 1\r\n%s\r\n%s",
		status, http.StatusText(status), time.Now().UTC().Format(http.TimeFormat), kind, len(text), ttl(r), text)
	if c.Mutate != nil {
		raw = c.Mutate(service, raw)
	}
	_, _ = conn.Write(raw) // who does not listen has hung up
}

// ttl is a header of the answer to a request for a token.
func ttl(r *http.Request) string {
	if r.Method != http.MethodPut {
		return ""
	}
	return "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: 21600\r\n"
}

// attest encrypts the passphrase to the key in a document, which it does not judge.
func attest(document []byte) (status int, kind, text string) {
	kind = "application/x-amz-json-1.1"
	public, err := attested.PublicKey(document)
	if err == nil {
		var envelope []byte
		if envelope, err = attested.Envelope(public, []byte(Passphrase)); err == nil {
			return http.StatusOK, kind, fmt.Sprintf(`{"KeyId":%q,"Plaintext":null,"CiphertextForRecipient":%q}`, KeyARN, base64.StdEncoding.EncodeToString(envelope))
		}
	}
	return http.StatusBadRequest, kind, fmt.Sprintf(`{"__type":"ValidationException","message":%q}`, err)
}

func (c *Cloud) answer(service string, r *http.Request, body []byte) (status int, kind, text string) {
	if c.Answer != nil {
		if status, text := c.Answer(service, r); status != 0 {
			return status, map[string]string{"imds": "text/plain", "s3": "application/xml", "kms": "application/x-amz-json-1.1"}[service], text
		}
	}
	switch service {
	case "s3":
		return http.StatusOK, "binary/octet-stream", string(Ciphertext())
	case "kms":
		var in struct {
			CiphertextBlob []byte
			Recipient      struct{ AttestationDocument []byte }
		}
		if json.Unmarshal(body, &in) != nil || !bytes.Equal(in.CiphertextBlob, Ciphertext()) {
			return http.StatusBadRequest, "application/x-amz-json-1.1", `{"__type":"InvalidCiphertextException"}`
		}
		if document := in.Recipient.AttestationDocument; document != nil {
			return attest(document)
		}
		return http.StatusOK, "application/x-amz-json-1.1", fmt.Sprintf(`{"KeyId":%q,"Plaintext":%q,"EncryptionAlgorithm":"SYMMETRIC_DEFAULT"}`,
			KeyARN, base64.StdEncoding.EncodeToString([]byte(Passphrase)))
	}
	switch {
	case r.Method == http.MethodPut:
		text = "AQAEATOKEN=="
	case strings.HasSuffix(r.URL.Path, "/security-credentials/"):
		text = "demo"
	case strings.HasSuffix(r.URL.Path, "/security-credentials/demo"):
		text = fmt.Sprintf(`{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"ASIAEXAMPLE","SecretAccessKey":"secret","Token":"token","Expiration":%q}`,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case r.URL.Path == "/latest/dynamic/instance-identity/document":
		text = `{"accountId":"111122223333","imageId":"ami-0123456789abcdef0","instanceId":"i-0123456789abcdef0","region":"us-east-1"}`
	case strings.HasSuffix(r.URL.Path, "/placement/region"):
		text = "us-east-1"
	default:
		return http.StatusNotFound, "text/html", "not found"
	}
	return http.StatusOK, "text/plain", text
}
