package keys

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"unlock/internal/config"
	"unlock/internal/ec2"
)

// getParameter returns the ciphertext that an SSM parameter holds in base64.
func (c *Client) getParameter(ctx context.Context, k config.Key) ([]byte, []Call, error) {
	region, err := c.region(ctx, k)
	if err != nil {
		return nil, nil, identityError(err)
	}
	u := Endpoint(c.o.AWS, config.SourceSSM, region)
	r := &request{
		Call: Call{Service: config.SourceSSM, Operation: "GetParameter"},
		op:   "reading " + string(k.Source), action: "ssm:GetParameter", resource: string(k.Source), region: region, host: u.Host,
	}
	var data []byte
	call, err := c.retry(ctx, r, time.Now(), false, func(ctx context.Context, role ec2.Role) error {
		var out parameterOutput
		id, err := c.post(ctx, role, config.SourceSSM, "AmazonSSM.GetParameter", u, region,
			map[string]any{"Name": k.Source.Path(), "WithDecryption": false}, &out)
		if err != nil {
			return err
		}
		r.RequestID = id
		data, err = out.ciphertext()
		return err
	})
	if err != nil {
		data = nil
	}
	return data, answered(call), err
}

// parameterOutput is the answer to GetParameter.
type parameterOutput struct {
	Parameter struct{ Type, Value string }
}

func (v *parameterOutput) ciphertext() ([]byte, error) {
	if v.Parameter.Type == "SecureString" {
		return nil, &fault{"(no-ciphertext)", errors.New("the parameter is a SecureString")}
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v.Parameter.Value), ""))
	if err != nil {
		return nil, &fault{"(no-ciphertext)", fmt.Errorf("the parameter is not base64: %w", err)}
	}
	if err := checkSize(len(data)); err != nil {
		return nil, &fault{"(no-ciphertext)", err}
	}
	return data, nil
}
