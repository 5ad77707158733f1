package keys

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"unlock/internal/aws"
	"unlock/internal/config"
)

// ssmRules are those of SSM's answers.
var ssmRules = []aws.Rule{
	{Codes: "ParameterNotFound ParameterVersionNotFound", Class: aws.Slow, Hint: "{resource} does not exist in {region}: check source and aws.region"},
	noCiphertext,
}

// getParameter returns the ciphertext that an SSM parameter holds in base64.
func (c *Client) getParameter(ctx context.Context, k config.Key) ([]byte, []aws.Call, error) {
	region, err := c.region(ctx, k)
	if err != nil {
		return nil, nil, aws.Unidentified(err)
	}
	r := &aws.Request{
		Call: aws.Call{Service: config.SourceSSM, Operation: "GetParameter"},
		Op:   "reading " + string(k.Source), Action: "ssm:GetParameter", Resource: string(k.Source), Region: region,
		URL: aws.Endpoint(c.o.AWS, config.SourceSSM, region), Rules: ssmRules,
		Target: "AmazonSSM.GetParameter", Input: map[string]any{"Name": k.Source.Path(), "WithDecryption": false},
	}
	var data []byte
	err = c.aws.Do(ctx, r, func(_ http.Header, body []byte) error {
		var out parameterOutput
		if err := aws.Decode(body, &out); err != nil {
			return err
		}
		data, err = out.ciphertext()
		return err
	})
	return data, answered(r.Call), err
}

// parameterOutput is the answer to GetParameter.
type parameterOutput struct {
	Parameter struct{ Type, Value string }
}

func (v *parameterOutput) ciphertext() ([]byte, error) {
	if v.Parameter.Type == "SecureString" {
		return nil, &aws.Fault{Code: "(no-ciphertext)", Err: errors.New("the parameter is a SecureString")}
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(v.Parameter.Value), ""))
	if err != nil {
		return nil, &aws.Fault{Code: "(no-ciphertext)", Err: fmt.Errorf("the parameter is not base64: %w", err)}
	}
	if err := checkSize(len(data)); err != nil {
		return nil, &aws.Fault{Code: "(no-ciphertext)", Err: err}
	}
	return data, nil
}
