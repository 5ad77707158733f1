package keys

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	u := endpoint(c.o.AWS, config.SourceSSM, region)
	u.Path = "/"
	r := &request{
		Call: Call{Service: config.SourceSSM, Operation: "GetParameter"},
		op:   "reading " + string(k.Source), action: "ssm:GetParameter", resource: string(k.Source), region: region, host: u.Host,
	}
	payload, err := json.Marshal(map[string]any{"Name": k.Source.Path(), "WithDecryption": false})
	if err != nil {
		return nil, nil, &Error{Op: r.op, Err: err}
	}
	var data []byte
	call, err := c.retry(ctx, r, time.Now(), false, func(ctx context.Context, role ec2.Role) error {
		req := &http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: http.Header{
			"Content-Type": {"application/x-amz-json-1.1"},
			"X-Amz-Target": {"AmazonSSM.GetParameter"},
		}}
		resp, body, err := c.send(ctx, role.Credentials, req, payload, config.SourceSSM, region)
		if err != nil {
			return err
		}
		if answer := answerOf(resp); answer != nil {
			answer.code, answer.message = jsonError(body)
			return answer
		}
		r.RequestID = requestID(resp.Header)
		data, err = parameter(body)
		return err
	})
	if err != nil {
		data = nil
	}
	return data, answered(call), err
}

// parameter decodes the answer to GetParameter.
func parameter(body []byte) ([]byte, error) {
	var v struct{ Parameter struct{ Type, Value string } }
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, &fault{"(malformed)", fmt.Errorf("decoding the answer: %w", err)}
	}
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

// jsonError returns code and message of an error in AWS' JSON protocol.
func jsonError(body []byte) (code, message string) {
	var v struct {
		Type    string `json:"__type"`
		Message string `json:"message"` // or "Message"
	}
	if json.Unmarshal(body, &v) != nil {
		return "", ""
	}
	return v.Type[strings.LastIndex(v.Type, "#")+1:], v.Message
}
