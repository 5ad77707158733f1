package keys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// ciphertext gets what is to be decrypted from its source.
func (c *Client) ciphertext(ctx context.Context, k config.Key) ([]byte, []aws.Call, error) {
	switch {
	case k.Source.Kind != nil && k.Source.Kind.Remote != nil:
		return c.fetch(ctx, k)
	case k.Source.Kind == source.File:
		data, err := readFile(k.Source.Name)
		return data, nil, err
	}
	return nil, nil, &aws.Error{Op: "getting the key", Err: fmt.Errorf("source %q holds no ciphertext", k.Source)}
}

// fetch asks AWS for a ciphertext, by one request. A bucket in another region than
// thought is followed there once.
func (c *Client) fetch(ctx context.Context, k config.Key) ([]byte, []aws.Call, error) {
	s, remote := k.Source, k.Source.Kind.Remote
	region, err := c.region(ctx, k)
	if err != nil {
		return nil, nil, aws.Unidentified(err)
	}
	r := &aws.Request{
		Call: aws.Call{Service: s.Kind.Name, Operation: remote.Operation},
		Op:   "reading " + s.String(), Action: s.Action(), Resource: s.String(), Region: region,
		URL: c.url(s, region), Target: remote.Target, Rules: rules(remote), Words: []string{"{service}", remote.Service, "{version}", s.Version},
		Move: func(region string) *url.URL {
			if !arn.ValidRegion(region) {
				return nil
			}
			return c.url(s, region)
		},
	}
	if remote.Input != nil {
		r.Input = remote.Input(s)
	}
	var data []byte
	err = c.aws.Do(ctx, r, func(h http.Header, body []byte) error {
		found, version, err := remote.Read(h, body)
		switch {
		case errors.Is(err, source.ErrMalformed):
			return &aws.Fault{Code: "(malformed)", Err: err}
		case err == nil && s.Kind.Pins && s.Version != "" && s.Version != version:
			return &aws.Fault{Code: "(other-version)", Err: fmt.Errorf("AWS gave version %q", version)}
		case err == nil:
			err = checkSize(len(found))
		}
		if err != nil {
			return &aws.Fault{Code: "(no-ciphertext)", Err: err}
		}
		r.Version, data = version, append([]byte(nil), found...)
		return nil
	})
	return data, answered(r.Call), err
}

// rules are those of a source's answers. What is too long for a ciphertext is more
// likely another object than another service.
func rules(remote *source.Remote) []aws.Rule {
	list := []aws.Rule{
		{Codes: "(no-ciphertext)", Class: aws.Final, Hint: "put the output of aws kms encrypt at {resource}: " + remote.Put},
		{Codes: "(other-version)", Class: aws.Final, Hint: "{service} gave another version than {version}: check aws.endpoint"},
	}
	if remote.Target == "" {
		list[0].Codes += " (too-long)"
	}
	for codes, hint := range remote.Late {
		list = append(list, aws.Rule{Codes: codes, Class: aws.Slow, Hint: hint})
	}
	for codes, hint := range remote.Final {
		list = append(list, aws.Rule{Codes: codes, Class: aws.Final, Hint: hint})
	}
	return list
}

// url is where a source is asked for in a region.
func (c *Client) url(s source.Source, region string) *url.URL {
	u := aws.Endpoint(c.o.AWS, s.Kind.Name, region)
	if s.Kind.Remote.URL == nil {
		return u
	}
	return s.Kind.Remote.URL(s, u, c.o.AWS.Endpoint[s.Kind.Name] != "")
}

// region returns where a key's bucket or parameter is first looked for: in the
// region of its ARN, as configured, of the first KMS key, or of the instance.
func (c *Client) region(ctx context.Context, k config.Key) (string, error) {
	switch {
	case k.Source.ARN.Region != "":
		return k.Source.ARN.Region, nil
	case c.o.AWS.Region != "":
		return c.o.AWS.Region, nil
	case len(k.KMSKeys) > 0:
		return k.KMSKeys[0].Region, nil
	}
	return c.o.Region(ctx)
}

// Warm opens connections to the services that keys will need.
func (c *Client) Warm(ctx context.Context, keys ...config.Key) {
	var urls []*url.URL
	for _, k := range keys {
		if len(k.KMSKeys) > 0 {
			urls = append(urls, aws.Endpoint(c.o.AWS, "kms", k.KMSKeys[0].Region))
		}
		if k.Source.Kind.Remote == nil {
			continue
		}
		if region, err := c.region(ctx, k); err == nil {
			urls = append(urls, c.url(k.Source, region))
		}
	}
	c.aws.Warm(ctx, urls...)
}
