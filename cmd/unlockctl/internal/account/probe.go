package account

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"unlock/cmd/unlockctl/internal/places"
	"unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/config"
	"unlock/internal/keys/source"
)

// This file tries things without doing them.

// TryGenerate asks KMS whether a data key could be made.
func (a *Account) TryGenerate(ctx context.Context, key string, context map[string]string) error {
	out, err := a.kms.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: &key, KeySpec: types.DataKeySpecAes256,
		EncryptionContext: context, DryRun: sdk.Bool(true)}, a.inRegion(key))
	var dry *types.DryRunOperationException
	if errors.As(err, &dry) {
		return nil
	}
	if err != nil {
		return wrap("making a data key with KMS", "kms:GenerateDataKey", key, err)
	}
	clear(out.Plaintext) // of a KMS that does not know dry runs
	return nil
}

// Endpoint returns the URL at which a service is asked: from the environment, the
// configuration, or the region in the key's ARN.
func Endpoint(o config.AWS, service string, key arn.ARN) string {
	region := key.Region
	if o.Region != "" && service != "kms" {
		region = o.Region
	}
	var base *string
	if u := os.Getenv("AWS_ENDPOINT_URL"); u != "" {
		base = &u
	}
	return endpoint(o, base, service, region)
}

// endpoint is where the SDK's own clients would ask; base is what it knows for all
// services.
func endpoint(o config.AWS, base *string, service, region string) string {
	name := strings.ToUpper(service)
	for _, k := range source.Kinds {
		if p, err := places.Of(k); err == nil && k.Name == service && p.Environment != "" {
			name = p.Environment
		}
	}
	if u := os.Getenv("AWS_ENDPOINT_URL_" + name); u != "" {
		return u
	}
	if base != nil {
		return *base
	}
	o.FIPS = o.FIPS || os.Getenv("AWS_USE_FIPS_ENDPOINT") == "true"
	o.DualStack = o.DualStack || os.Getenv("AWS_USE_DUALSTACK_ENDPOINT") == "true"
	return aws.Endpoint(o, service, region).String()
}

// Connected returns the host that is connected to for a URL: its own, or a proxy's.
func Connected(o config.AWS, u *url.URL) string {
	if p, err := proxy(o)(&http.Request{URL: u}); err == nil && p != nil {
		return p.Hostname()
	}
	return u.Hostname()
}

// Date asks an endpoint for the time, over TLS with the same authorities as all
// other requests. What it says of the request does not matter.
func Date(ctx context.Context, o config.AWS, at string) (time.Time, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range []string{os.Getenv("AWS_CA_BUNDLE"), o.CABundle} {
		if file == "" {
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return time.Time{}, fmt.Errorf("reading certificate authorities: %w", err)
		}
		pool.AppendCertsFromPEM(pem)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, at, nil)
	if err != nil {
		return time.Time{}, err
	}
	t := &http.Transport{Proxy: proxy(o), TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}
