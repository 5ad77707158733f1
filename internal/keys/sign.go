package keys

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// signer signs with the time by AWS' clock, as far as it is known to differ.
type signer struct{ c *Client }

// SignHTTP implements kms.HTTPSignerV4.
func (s signer) SignHTTP(ctx context.Context, creds aws.Credentials, r *http.Request, payloadHash, service, region string, _ time.Time, opts ...func(*v4.SignerOptions)) error {
	now := time.Now().Add(time.Duration(s.c.skew.Load()))
	return v4.NewSigner().SignHTTP(ctx, creds, r, payloadHash, service, region, now.UTC(), opts...)
}

// Do sends a request; the body of its response is bounded and wiped when closed.
func (s signer) Do(req *http.Request) (*http.Response, error) {
	resp, err := s.c.transport.RoundTrip(req) // not http.Client: redirects are not followed blindly
	if err != nil {
		return nil, err
	}
	resp.Body = &wipingBody{ReadCloser: resp.Body, left: maxAnswer}
	return resp, nil
}

// send signs and sends a request with the given payload, and returns the
// response and its whole body.
func (c *Client) send(ctx context.Context, creds aws.Credentials, req *http.Request, payload []byte, service, region string) (*http.Response, []byte, error) {
	hash := sha256.Sum256(payload)
	sum := hex.EncodeToString(hash[:])
	s3 := service == "s3"
	if s3 {
		req.Header.Set("X-Amz-Content-Sha256", sum)
	}
	err := signer{c}.SignHTTP(ctx, creds, req, sum, service, region, time.Time{}, func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = s3 // S3 signs the path as it is sent
	})
	if err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	if len(payload) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(payload)), int64(len(payload))
	}
	resp, err := signer{c}.Do(req.WithContext(ctx))
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, err
	}
	return resp, bytes.Clone(body), nil // Close overwrites what was read
}
