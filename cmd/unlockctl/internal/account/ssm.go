package account

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// ssmPlace is an SSM parameter of type String, which holds the ciphertext in base64.
// SSM keeps its old versions.
type ssmPlace struct {
	a            *Account
	name, region string
}

func (p *ssmPlace) options(o *ssm.Options) {
	if p.region != "" {
		o.Region = p.region
	}
}

func (p *ssmPlace) Read(ctx context.Context) (Object, error) {
	out, err := p.a.ssm.GetParameter(ctx, &ssm.GetParameterInput{Name: &p.name}, p.options)
	if err != nil {
		return Object{}, wrap("reading ssm:"+p.name, "ssm:GetParameter", "parameter "+p.name, err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(aws.ToString(out.Parameter.Value)), ""))
	if err != nil {
		return Object{}, fmt.Errorf("reading ssm:%s: not base64: %w", p.name, err)
	}
	return checked(Object{Ciphertext: data, Version: strconv.FormatInt(out.Parameter.Version, 10)}, "ssm:"+p.name)
}

func (p *ssmPlace) Create(ctx context.Context, ciphertext []byte) (Object, error) {
	return p.put(ctx, ciphertext, false)
}

func (p *ssmPlace) Replace(ctx context.Context, old Object, ciphertext []byte) (Object, string, error) {
	now, err := p.put(ctx, ciphertext, true)
	return now, "ssm:" + p.name + ":" + old.Version, err
}

func (p *ssmPlace) put(ctx context.Context, ciphertext []byte, overwrite bool) (Object, error) {
	out, err := p.a.ssm.PutParameter(ctx, &ssm.PutParameterInput{
		Name: &p.name, Type: types.ParameterTypeString, Overwrite: &overwrite,
		Value: aws.String(base64.StdEncoding.EncodeToString(ciphertext)),
	}, p.options)
	var exists *types.ParameterAlreadyExists
	if errors.As(err, &exists) {
		return Object{}, &Error{Op: "writing ssm:" + p.name, Err: ErrExists}
	}
	if err != nil {
		return Object{}, wrap("writing ssm:"+p.name, "ssm:PutParameter", "parameter "+p.name, err)
	}
	return Object{Ciphertext: ciphertext, Version: strconv.FormatInt(out.Version, 10)}, nil
}
