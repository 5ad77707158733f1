package keys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
)

// getObject returns the ciphertext in an S3 object, by one signed GET. A bucket
// in another region than thought is followed there once.
func (c *Client) getObject(ctx context.Context, k config.Key) ([]byte, []Call, error) {
	region, err := c.region(ctx, k)
	if err != nil {
		return nil, nil, identityError(err)
	}
	bucket, key := k.Source.Bucket()
	r := &request{
		Call: Call{Service: config.SourceS3, Operation: "GetObject"},
		op:   "reading " + string(k.Source), action: "s3:GetObject", resource: string(k.Source), version: k.VersionID,
	}
	if k.VersionID != "" {
		r.action = "s3:GetObjectVersion"
	}
	moved := false
	var data []byte
	call, err := c.retry(ctx, r, time.Now(), false, func(ctx context.Context, role ec2.Role) error {
		for {
			u := objectURL(c.o.AWS, k, region)
			r.host, r.region = u.Host, region
			req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}}
			resp, body, err := c.send(ctx, role.Credentials, req, nil, config.SourceS3, region)
			if errors.Is(err, errTooLong) {
				return &fault{"(no-ciphertext)", err} // more likely another object than another service
			}
			if err != nil {
				return err
			}
			if answer := answerOf(resp); answer != nil {
				answer.code, answer.message = element(body, "Code"), element(body, "Message")
				if to := answer.region; !moved && to != region && validRegion(to) {
					c.o.Log("bucket %s is in %s, not %s", bucket, to, region)
					moved, region = true, to
					continue
				}
				return answer
			}
			r.RequestID, r.Version = requestID(resp.Header), resp.Header.Get("X-Amz-Version-Id")
			if k.VersionID != "" && r.Version != k.VersionID {
				return &fault{"(other-version)", fmt.Errorf("S3 gave version %q of %s", r.Version, key)}
			}
			if err := checkSize(len(body)); err != nil {
				return &fault{"(no-ciphertext)", err}
			}
			data = body
			return nil
		}
	})
	return data, answered(call), err
}

// element returns the text of the first XML element of that name. S3's errors
// are flat, and this is a diagnosis, not a decision: encoding/xml would add
// 200 KB to the program.
func element(body []byte, name string) string {
	_, rest, _ := strings.Cut(string(body), "<"+name+">")
	text, _, found := strings.Cut(rest, "</"+name+">")
	if !found {
		return ""
	}
	return text
}

// answered returns a call if AWS answered it.
func answered(call Call) []Call {
	if call.RequestID == "" {
		return nil
	}
	return []Call{call}
}
