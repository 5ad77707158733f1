// Package account is the administrator's way to AWS: KMS, and the places where
// ciphertexts are kept (S3 objects, files, what is asked in the JSON protocol). It uses the SDK's whole
// configuration: profiles, SSO, assumed roles, AWS_ENDPOINT_URL, AWS_CA_BUNDLE. It
// is never part of the unlock program, whose way to AWS is package keys.
//
// Plaintexts pass through the SDK as JSON text and byte slices. The slices are
// overwritten here; the text becomes garbage once the Account is closed, and the
// program has the collector overwrite that.
package account

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudtrail"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"unlock/internal/config"
	"unlock/internal/ec2"
)

// Options of New.
type Options struct {
	Profile string     // of the shared configuration; "": AWS_PROFILE, or the default
	Region  string     // "": of the key's ARN, else AWS_REGION or the profile's
	AWS     config.AWS // endpoints and authorities as the instance has them
}

// Account makes requests with the administrator's credentials. Safe for concurrent use.
type Account struct {
	region      string // chosen by hand
	connections connections
	imds        *ec2.Client // nil: it is not asked
	kms         *kms.Client
	s3          *s3.Client
	sdk         aws.Config
	aws         config.AWS
	cloudtrail  *cloudtrail.Client
}

// New reads the SDK's configuration. It makes no request yet. The caller closes the
// Account.
func New(ctx context.Context, o Options) (*Account, error) {
	var options []func(*awsconfig.LoadOptions) error
	if o.Profile != "" {
		options = append(options, awsconfig.WithSharedConfigProfile(o.Profile))
	}
	region := o.Region
	if region == "" {
		region = o.AWS.Region
	}
	if region != "" {
		options = append(options, awsconfig.WithRegion(region))
	}
	if o.AWS.FIPS {
		options = append(options, awsconfig.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	if o.AWS.DualStack {
		options = append(options, awsconfig.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled))
	}
	a := &Account{region: o.Region}
	client, err := a.connections.transport(o.AWS)
	if err != nil {
		return nil, err
	}
	imds, asked := instanceRole(o.AWS)
	a.imds = imds
	options = append(append(options, awsconfig.WithHTTPClient(client)), asked...)
	c, err := awsconfig.LoadDefaultConfig(ctx, options...)
	var unknown awsconfig.SharedConfigProfileNotExistError
	if errors.As(err, &unknown) {
		return nil, &Error{Op: "reading the AWS configuration", Err: fmt.Errorf("there is no profile %q", unknown.Profile),
			Hint: "aws configure list-profiles shows those that there are"}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the AWS configuration: %w", err)
	}
	a.kms = kms.NewFromConfig(c, func(k *kms.Options) { override(&k.BaseEndpoint, o.AWS.Endpoint["kms"]) })
	a.s3 = s3.NewFromConfig(c, func(k *s3.Options) {
		override(&k.BaseEndpoint, o.AWS.Endpoint["s3"])
		k.UsePathStyle = k.BaseEndpoint != nil
		k.DisableLogOutputChecksumValidationSkipped = true // KMS's own authentication is the check
	})
	a.sdk, a.aws = c, o.AWS
	a.cloudtrail = cloudtrail.NewFromConfig(c)
	return a, nil
}

// override sets an endpoint that the environment does not set.
func override(base **string, url string) {
	if *base == nil && url != "" {
		*base = aws.String(url)
	}
}

// Error is a request that was refused, or got no answer.
type Error struct {
	Op   string // "encrypting with KMS"
	Err  error
	Hint string // what to do; may be empty

	cause error // as the SDK has it
}

func (e *Error) Error() string { return e.Op + ": " + e.Err.Error() }

// Advice returns the hint, as a hint.Adviser does.
func (e *Error) Advice() string { return e.Hint }

func (e *Error) Unwrap() error { return e.Err }

var errPlaintext = errors.New("the plaintext that KMS returned is empty")
