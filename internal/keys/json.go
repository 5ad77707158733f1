package keys

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"unlock/internal/ec2"
)

// post makes a request in AWS' JSON 1.1 protocol, decodes the answer into out and
// returns its request id. The text of the answer is wiped.
func (c *Client) post(ctx context.Context, role ec2.Role, service, target string, u *url.URL, region string, in, out any) (id string, err error) {
	payload, err := json.Marshal(in)
	if err != nil {
		return "", fmt.Errorf("encoding the request: %w", err)
	}
	to := *u
	to.Path = "/"
	req := &http.Request{Method: http.MethodPost, URL: &to, Host: u.Host, Header: http.Header{
		"Content-Type": {"application/x-amz-json-1.1"},
		"X-Amz-Target": {target},
	}}
	resp, body, err := c.send(ctx, role.Credentials, req, payload, service, region)
	if err != nil {
		return "", err
	}
	defer clear(body)
	if answer := answerOf(resp); answer != nil {
		answer.code, answer.message = jsonError(body)
		return "", answer
	}
	if err := json.Unmarshal(body, out); err != nil {
		return "", &fault{"(malformed)", fmt.Errorf("decoding the answer: %w", err)}
	}
	return requestID(resp.Header), nil
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
