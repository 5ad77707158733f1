package keys

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
)

// s3Rules are those of S3's answers.
var s3Rules = []aws.Rule{
	{Codes: "AccessDenied", Class: aws.Slow, Hint: "allow {action} on {resource} to role {role} (S3 may say the same of an object that does not exist)"},
	{Codes: "NoSuchKey", Class: aws.Slow, Hint: "put the ciphertext at {resource}, or check source"},
	{Codes: "NoSuchBucket", Class: aws.Slow, Hint: "bucket of {resource} does not exist: check source"},
	{Codes: "NoSuchVersion", Class: aws.Slow, Hint: "version {version} of {resource} is gone: check version_id, or restore it"},
	{Codes: "InvalidObjectState", Class: aws.Final, Hint: "{resource} is archived: restore it to a class that can be read at once"},
	{Codes: "PermanentRedirect TemporaryRedirect", Class: aws.Final, Hint: "set aws.region to the bucket's region"},
	{Codes: "(other-version)", Class: aws.Final, Hint: "S3 gave another version than {version}: check aws.endpoint"},
	noCiphertext,
}

// noCiphertext is for what cannot be one: more likely another object than another
// service.
var noCiphertext = aws.Rule{Codes: "(no-ciphertext) (too-long)", Class: aws.Final,
	Hint: "put the output of aws kms encrypt at {resource}: raw bytes in S3, base64 in a parameter of type String"}

// getObject returns the ciphertext in an S3 object, by one signed GET. A bucket
// in another region than thought is followed there once.
func (c *Client) getObject(ctx context.Context, k config.Key) ([]byte, []aws.Call, error) {
	region, err := c.region(ctx, k)
	if err != nil {
		return nil, nil, aws.Unidentified(err)
	}
	r := &aws.Request{
		Call: aws.Call{Service: config.SourceS3, Operation: "GetObject"},
		Op:   "reading " + string(k.Source), Action: "s3:GetObject", Resource: string(k.Source), Region: region,
		URL: objectURL(c.o.AWS, k, region), Rules: s3Rules, Words: []string{"{version}", k.VersionID},
		Move: func(region string) *url.URL {
			if !arn.ValidRegion(region) {
				return nil
			}
			return objectURL(c.o.AWS, k, region)
		},
	}
	if k.VersionID != "" {
		r.Action = "s3:GetObjectVersion"
	}
	var data []byte
	err = c.aws.Do(ctx, r, func(h http.Header, body []byte) error {
		r.Version = h.Get("X-Amz-Version-Id")
		if k.VersionID != "" && r.Version != k.VersionID {
			return &aws.Fault{Code: "(other-version)", Err: fmt.Errorf("S3 gave version %q", r.Version)}
		}
		if err := checkSize(len(body)); err != nil {
			return &aws.Fault{Code: "(no-ciphertext)", Err: err}
		}
		data = append(data[:0], body...)
		return nil
	})
	return data, answered(r.Call), err
}

// objectURL returns the URL of an object: the bucket in the host name, but for
// explicit endpoints and for buckets whose dots the wildcard certificate does
// not cover.
func objectURL(o config.AWS, k config.Key, region string) *url.URL {
	bucket, key := k.Source.Bucket()
	u := aws.Endpoint(o, config.SourceS3, region)
	if o.Endpoint[config.SourceS3] == "" && !strings.Contains(bucket, ".") {
		u.Host = bucket + "." + u.Host
	} else {
		key = bucket + "/" + key
	}
	u.Path, u.RawPath = "/"+key, "/"+escape(key)
	if k.VersionID != "" {
		u.RawQuery = url.Values{"versionId": {k.VersionID}}.Encode()
	}
	return u
}

// escape encodes an object key as SigV4 for S3 wants it: every byte but the
// unreserved ones of RFC 3986 and the slash.
func escape(key string) string {
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~/", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
