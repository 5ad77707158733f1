package account

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/keys"
	"unlock/internal/keys/source"
)

// s3Place is an S3 object.
type s3Place struct {
	a      *Account
	source source.Source
	place  places.Place
	region string
}

func (p *s3Place) url() string { return p.source.String() }

// wrap is the package's, with the hints for objects.
func (p *s3Place) wrap(op, action string, err error) error {
	return withHint(wrap(op+" "+p.url(), action, p.url(), err), p.place, p.source)
}

func (p *s3Place) options(o *s3.Options) {
	if p.region != "" {
		o.Region = p.region
	}
}

func (p *s3Place) Read(ctx context.Context) (Object, error) {
	out, err := p.a.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &p.source.Bucket, Key: &p.source.Name}, p.options)
	if err != nil {
		return Object{}, p.wrap("reading", "s3:GetObject", err)
	}
	defer out.Body.Close()
	data, err := io.ReadAll(io.LimitReader(out.Body, keys.MaxCiphertext+1))
	if err != nil {
		return Object{}, p.wrap("reading", "s3:GetObject", err)
	}
	return checked(Object{data, aws.ToString(out.VersionId), aws.ToString(out.ETag)}, p.url())
}

func (p *s3Place) Create(ctx context.Context, ciphertext []byte) (Object, error) {
	// Asking first spares those endpoints that do not know If-None-Match.
	_, err := p.a.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &p.source.Bucket, Key: &p.source.Name}, p.options)
	if err == nil {
		return Object{}, &Error{Op: "writing " + p.url(), Err: ErrExists}
	}
	// Without s3:ListBucket S3 says 403 of what is not there.
	if code := statusOf(err); code != http.StatusNotFound && code != http.StatusForbidden {
		return Object{}, p.wrap("looking for", "s3:GetObject", err)
	}
	return p.put(ctx, ciphertext, &s3.PutObjectInput{Key: &p.source.Name, IfNoneMatch: aws.String("*")})
}

// Replace relies on the bucket's versions; without them it first copies the old
// ciphertext to an object of another name.
func (p *s3Place) Replace(ctx context.Context, old Object, ciphertext []byte) (Object, string, error) {
	kept := p.url() + "?versionId=" + old.Version
	if old.Version == "" || old.Version == "null" {
		name := p.source.Name + ".old-" + stamp()
		if _, err := p.put(ctx, old.Ciphertext, &s3.PutObjectInput{Key: &name}); err != nil {
			return Object{}, "", err
		}
		kept = "s3://" + p.source.Bucket + "/" + name
	}
	now, err := p.put(ctx, ciphertext, &s3.PutObjectInput{Key: &p.source.Name, IfMatch: &old.etag})
	return now, kept, err
}

func (p *s3Place) put(ctx context.Context, ciphertext []byte, in *s3.PutObjectInput) (Object, error) {
	in.Bucket, in.Body, in.ContentType = &p.source.Bucket, bytes.NewReader(ciphertext), aws.String("application/octet-stream")
	out, err := p.a.s3.PutObject(ctx, in, p.options)
	if in.IfNoneMatch != nil && statusOf(err) == http.StatusPreconditionFailed {
		return Object{}, &Error{Op: "writing " + p.url(), Err: ErrExists}
	}
	if err != nil {
		return Object{}, p.wrap("writing", "s3:PutObject", err)
	}
	return Object{ciphertext, aws.ToString(out.VersionId), aws.ToString(out.ETag)}, nil
}

// statusOf returns the HTTP status of a refusal, or 0.
func statusOf(err error) int {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}
