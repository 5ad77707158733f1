package account

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"unlock/internal/aws"
	"unlock/internal/config"
	"unlock/internal/keys"
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

// Endpoint returns the URL at which a service is asked, as the SDK finds it: from the
// environment, the configuration, or the region in the key's ARN.
func Endpoint(o config.AWS, service, arn string) string {
	for _, name := range []string{"AWS_ENDPOINT_URL_" + strings.ToUpper(service), "AWS_ENDPOINT_URL"} {
		if u := os.Getenv(name); u != "" {
			return u
		}
	}
	region := keys.RegionOf(arn)
	if o.Region != "" && service != "kms" {
		region = o.Region
	}
	return aws.Endpoint(o, service, region).String()
}

// Date asks an endpoint for the time, over TLS with the same authorities as all
// other requests. What it says of the request does not matter.
func Date(ctx context.Context, o config.AWS, url string) (time.Time, error) {
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
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return time.Time{}, err
	}
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer t.CloseIdleConnections()
	resp, err := t.RoundTrip(req)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return http.ParseTime(resp.Header.Get("Date"))
}
