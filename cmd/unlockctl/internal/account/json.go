package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"unlock/cmd/unlockctl/internal/places"
	ours "unlock/internal/aws"
	"unlock/internal/aws/arn"
	"unlock/internal/keys/source"
)

// jsonPlace is what a service keeps that is asked in AWS' JSON protocol: an SSM
// parameter, for one. The service keeps old versions.
type jsonPlace struct {
	a      *Account
	source source.Source
	region string
	place  places.Place
	words  places.Words
}

func (p *jsonPlace) Read(ctx context.Context) (Object, error) {
	s := p.source
	op, remote := "reading "+s.String(), s.Kind.Remote
	body, err := p.a.ask(ctx, s.Kind.Name, p.region, remote.Target, remote.Input(s))
	if err != nil {
		return Object{}, p.wrap(op, s.Action(), err)
	}
	data, version, err := remote.Read(nil, body)
	if err != nil {
		return Object{}, fmt.Errorf("%s: %w", op, err)
	}
	return checked(Object{Ciphertext: data, Version: version}, s.String())
}

func (p *jsonPlace) Create(ctx context.Context, ciphertext []byte) (Object, error) {
	if p.source.ARN != (arn.ARN{}) {
		return Object{}, &Error{Op: "writing " + p.source.String(), Err: errors.New("an ARN is of what is there already"), Hint: "give the name"}
	}
	return p.write(ctx, p.place.Create, ciphertext)
}

func (p *jsonPlace) Replace(ctx context.Context, old Object, ciphertext []byte) (Object, string, error) {
	now, err := p.write(ctx, p.place.Replace, ciphertext)
	w := p.words
	w.Version = old.Version
	return now, w.Fill(p.place.Kept), err
}

func (p *jsonPlace) write(ctx context.Context, request *places.Write, ciphertext []byte) (Object, error) {
	op := "writing " + p.source.String()
	if p.source.Version != "" {
		return Object{}, &Error{Op: op, Err: errors.New("it names a version that is there already"), Hint: "name the place without a version"}
	}
	var token [16]byte
	rand.Read(token[:]) // never fails
	w := p.words
	w.Ciphertext, w.Token = ciphertext, hex.EncodeToString(token[:])
	body, err := p.a.ask(ctx, p.source.Kind.Name, p.region, request.Target, w.Input(request.Input))
	var refused smithy.APIError
	if errors.As(err, &refused) && refused.ErrorCode() == request.Exists {
		return Object{}, &Error{Op: op, Err: ErrExists}
	}
	if err != nil {
		return Object{}, p.wrap(op, request.Action, err)
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		return Object{}, fmt.Errorf("%s: %w", op, err)
	}
	return Object{Ciphertext: ciphertext, Version: fmt.Sprint(answer[request.Version])}, nil
}

// wrap is the package's, with the hints for this kind of place.
func (p *jsonPlace) wrap(op, action string, err error) error {
	return withHint(wrap(op, action, p.source.String(), err), p.place, p.source)
}

// maxAnswer is the longest answer that is read, in bytes.
const maxAnswer = 1 << 20

// ask makes a request in the JSON 1.1 protocol, with the SDK's signature, HTTP client
// and retries, and returns the answer.
func (a *Account) ask(ctx context.Context, service, region, target string, input any) ([]byte, error) {
	payload, err := json.Marshal(input)
	if err != nil {
		return nil, err
	}
	if region == "" {
		region = a.sdk.Region
	}
	if region == "" {
		return nil, errNoRegion
	}
	u, err := url.Parse(endpoint(a.aws, a.sdk.BaseEndpoint, service, region))
	if err != nil {
		return nil, err
	}
	u.Path = "/"
	retryer := a.retryer()
	for try := 1; ; try++ {
		body, err := a.askOnce(ctx, service, region, u.String(), target, payload)
		if err == nil || try >= retryer.MaxAttempts() || !retryer.IsErrorRetryable(err) {
			return body, err
		}
		wait, delayErr := retryer.RetryDelay(try, err)
		if delayErr != nil {
			return nil, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// retryer is what the SDK's own clients use.
func (a *Account) retryer() aws.Retryer {
	if a.sdk.Retryer != nil {
		return a.sdk.Retryer()
	}
	return retry.NewStandard(func(o *retry.StandardOptions) {
		if a.sdk.RetryMaxAttempts > 0 {
			o.MaxAttempts = a.sdk.RetryMaxAttempts
		}
	})
}

func (a *Account) askOnce(ctx context.Context, service, region, url, target string, payload []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", target)
	creds, err := a.sdk.Credentials.Retrieve(ctx)
	if err != nil {
		return nil, fmt.Errorf("get credentials: %w", err)
	}
	sum := sha256.Sum256(payload)
	if err := v4.NewSigner().SignHTTP(ctx, creds, req, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
		return nil, err
	}
	resp, err := a.sdk.HTTPClient.Do(req)
	if err != nil {
		return nil, &smithyhttp.RequestSendError{Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil || resp.StatusCode == http.StatusOK {
		return body, err
	}
	code, message := ours.JSONRefusal(body)
	if code == "" {
		code = resp.Status
	}
	return nil, &awshttp.ResponseError{RequestID: resp.Header.Get("X-Amzn-Requestid"), ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: resp}, Err: &smithy.GenericAPIError{Code: code, Message: message}}}
}
