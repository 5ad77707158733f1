package aws

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// send signs and sends a request with the given payload, and returns the
// response and its whole body.
func (c *Client) send(ctx context.Context, creds sdk.Credentials, req *http.Request, payload []byte, service, region string) (*http.Response, []byte, error) {
	hash := sha256.Sum256(payload)
	sum := hex.EncodeToString(hash[:])
	s3 := service == "s3"
	if s3 {
		req.Header.Set("X-Amz-Content-Sha256", sum)
	}
	now := time.Now().Add(time.Duration(c.skew.Load())) // by AWS' clock, as far as it is known to differ
	err := v4.NewSigner().SignHTTP(ctx, creds, req, sum, service, region, now.UTC(), func(o *v4.SignerOptions) {
		o.DisableURIPathEscaping = s3 // S3 signs the path as it is sent
	})
	if err != nil {
		return nil, nil, fmt.Errorf("signing: %w", err)
	}
	if len(payload) > 0 {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(payload)), int64(len(payload))
	}
	resp, err := c.transport.RoundTrip(req.WithContext(ctx)) // not http.Client: redirects are not followed blindly
	if err != nil {
		return nil, nil, err
	}
	answer := &wipingBody{ReadCloser: resp.Body, left: maxAnswer}
	defer answer.Close()
	buf := make([]byte, maxAnswer+1) // not io.ReadAll, which leaves copies
	n, err := io.ReadFull(answer, buf)
	if err != io.EOF && err != io.ErrUnexpectedEOF { // the end of the answer, which leaves room in buf
		return nil, nil, err
	}
	return resp, bytes.Clone(buf[:n]), nil // Close overwrites what was read
}
