package account

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"unlock/cmd/unlockctl/internal/trail"
	"unlock/internal/aws/arn"
)

// TrailFiles lists the files of a trail in S3.
func (a *Account) TrailFiles(ctx context.Context, bucket, prefix string) ([]trail.File, error) {
	where := "s3://" + bucket + "/" + prefix
	var list []trail.File
	pages := s3.NewListObjectsV2Paginator(a.s3, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, wrap("listing "+where, "s3:ListBucket", where, err)
		}
		for _, o := range page.Contents {
			key := aws.ToString(o.Key)
			list = append(list, trail.File{Bucket: bucket, Name: key, Size: aws.ToInt64(o.Size),
				Open: func(ctx context.Context) (io.ReadCloser, map[string]string, error) {
					out, err := a.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
					if err != nil {
						name := "s3://" + bucket + "/" + key
						return nil, nil, wrap("reading "+name, "s3:GetObject", name, err)
					}
					return out.Body, out.Metadata, nil
				}})
		}
	}
	return list, nil
}

// LookupEvents returns what CloudTrail itself keeps for 90 days: the management events
// of KMS keys, and those that stop trails, without reads of objects and parameters.
// It is asked while the file is read.
func (a *Account) LookupEvents(arns []string, changes []string, since, until time.Time) trail.File {
	return trail.File{Name: "LookupEvents", Open: func(ctx context.Context) (io.ReadCloser, map[string]string, error) {
		r, w := io.Pipe()
		l := &lookup{PipeReader: r}
		l.asking.Go(func() {
			var err error
			for _, arn := range arns {
				if err == nil {
					err = a.lookup(ctx, w, types.LookupAttributeKeyResourceName, arn, since, until)
				}
			}
			for _, name := range changes {
				if err == nil {
					err = a.lookup(ctx, w, types.LookupAttributeKeyEventName, name, since, until)
				}
			}
			w.CloseWithError(err)
		})
		return l, nil, nil
	}}
}

// lookup reads events while they are asked for.
type lookup struct {
	*io.PipeReader
	asking sync.WaitGroup
}

// Close ends the asking.
func (l *lookup) Close() error {
	err := l.PipeReader.Close()
	l.asking.Wait()
	return err
}

// lookup writes the events with an attribute.
func (a *Account) lookup(ctx context.Context, w io.Writer, name types.LookupAttributeKey, value string, since, until time.Time) error {
	in := &cloudtrail.LookupEventsInput{LookupAttributes: []types.LookupAttribute{{AttributeKey: name, AttributeValue: &value}}}
	if !since.IsZero() {
		in.StartTime = &since
	}
	if !until.IsZero() {
		in.EndTime = &until
	}
	var region []func(*cloudtrail.Options)
	if r := arn.Region(value); r != "" && a.region == "" {
		region = append(region, func(o *cloudtrail.Options) { o.Region = r })
	}
	pages := cloudtrail.NewLookupEventsPaginator(a.cloudtrail, in)
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx, region...)
		if err != nil {
			return wrap("looking up events", "cloudtrail:LookupEvents", value, err)
		}
		for _, e := range page.Events {
			if _, err := fmt.Fprintln(w, aws.ToString(e.CloudTrailEvent)); err != nil {
				return err
			}
		}
	}
	return nil
}

// PublicKeys returns the keys with which CloudTrail signed digests in a Region and
// time.
func (a *Account) PublicKeys(ctx context.Context, region string, from, to time.Time) (trail.Keys, error) {
	keys := trail.Keys{}
	pages := cloudtrail.NewListPublicKeysPaginator(a.cloudtrail, &cloudtrail.ListPublicKeysInput{StartTime: &from, EndTime: &to})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx, func(o *cloudtrail.Options) { o.Region = region })
		if err != nil {
			return nil, wrap("asking for CloudTrail's public keys", "cloudtrail:ListPublicKeys", "*", err)
		}
		for _, k := range page.PublicKeyList {
			key, err := trail.ParseKey(k.Value)
			if err != nil {
				return nil, err
			}
			keys[aws.ToString(k.Fingerprint)] = key
		}
	}
	return keys, nil
}
